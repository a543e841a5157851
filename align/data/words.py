"""Words of columns and of labels, by which it is judged what may be left unread; all in lower case."""

from __future__ import annotations

import re

__all__ = [
    "FLAGS",
    "FLIPS",
    "KNOWN_ANSWERS",
    "LABELS",
    "LANGUAGES",
    "NEUTRAL",
    "NOTES",
    "PRESENT",
    "PROMPTS",
    "QUANTITIES",
    "RATERS",
    "REMARKS",
    "SCORES",
    "SIDES",
    "THINGS",
    "VERDICTS",
    "WORSE",
    "is_about",
    "is_kind",
    "is_label",
    "is_verdict_word",
    "words_of",
]


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


SIDES = _set("""
    accepted answer answers bad best better candidate candidates chosen completion completions conversation
    conversations dialog dialogue dialogues generation generations good loser losing messages negative output outputs
    positive preferred rejected replies reply response responses summaries summary winner winning worse worst
""")
LABELS = _set("""
    best better choice chose desirable helpful judgement judgment kto label labels liked preference preferred rank
    ranking ranks selected thumbs verdict vote votes winner winning
""")
SCORES = _set("""
    accept acceptable approve approved correct correctness disliked dislikes downvote downvotes error errors fail failed
    failure feedback flag flagged flags golden grade hallucinated hallucination harmful helpfulness incorrect liked
    likes pass passed quality rating ratings refusal refused reward rewards safe score scores spam stars toxic unsafe
    upvote upvotes valid verified wrong
""")
WORSE = _set("bad incorrect invalid losing loser negative rejected worse worst wrong")
"""Words of sides and verdicts that are against an answer."""
VERDICTS = _set("accepted bad good negative positive rejected worse worst")
"""Words of sides that, with a number or a flag, say how good an answer is."""
PROMPTS = _set("""
    api apis article articles background choices context document documents evidence facts functions hint hints history
    hypothesis image images input instruction instructions knowledge options paragraph paragraphs passage passages
    persona post premise prompt prompts query question questions schema story system table tools video videos audio
""")
NEUTRAL = _set("full my raw text texts the")

_ABOUT = _set("""
    author category count dataset date domain generator hash header id idx ids index key lang language length level link
    model models name severity sha source split status subset tag tags time timestamp tokens topic tstamp type url urls
    uuid version worker
""")
"""Last words of columns that say something about a row."""
_KINDS = _set("""
    ability area attribute authors capability categories class classes complexity config configuration
    country datasets difficulty domains dump engine exam extension field fields file filename folder format framework
    frequency gender genre group groups intent kind languages letter level lib library licence license locale
    location method mode motivation name origin os path phase platform policy provider publisher region repo repository
    resource role script section series session site skill skills sources stage state strategy style subcategory
    subdomain subfield subject subreddit subtask subtopic tags task tasks template title topics type types user
    users variant voice year
""")
"""Last words of columns that say of what kind a row is: a few short texts, or names that differ."""
PRESENT = _set("banned deleted deletion issue issues reject rejection removal removed violation violations")
"""Words of columns that are empty beside a good answer."""
QUANTITIES = _set("""
    age avg batch budget char characters chars chunk chunks cluster cost count created date day depth difficulty dump
    duration epoch height hops hour hours id ids idx index iteration key lang language latency len length level line
    lines month ms n num number offset page param parameters params penalty price published pub row sec second seconds
    seed sentence sentences shard size start end step steps temp temperature time timestamp tok token tokens top total
    tstamp turn turns uid unix updated usage version view views width word words year
""")
"""Words of which a number about a row, or about how it was made, has at least one …"""
THINGS = _set("""
    answer answers assistant at average by chosen completion completions context conversation data dataset doc document
    example file frequency generation human in input inputs instruction locale max mean median message messages min
    minute minutes model of output outputs parent presence prompt prompts question response responses rows sample
    samples sampling solution source sources split system task text thread tree unnamed user utc
""")
"""… and which its other words may be."""
KNOWN_ANSWERS = _set("expected final ground original predicted reference true truth")
"""Words of the answer that a response is compared with, where it is a number."""
LANGUAGES = _set("lang language locale")
FLAGS = _set("""
    anonymized anony classification code custom english format formatting from has hide in instruction is language latex
    math multi multiturn prompt redacted single skip stream streamed streaming synthetic system translated turn turns
    was with
""")
"""Words that alone make up the name of a flag about a row or how it was made."""
NOTES = _set("""
    analyses analysis annotation annotations annotator annotators comment comments critique critiques elaboration
    evaluation explanation explanations feedback justification justifications moderation note notes
    principle principles rational rationale rationales reason reasoning reasons
""")
"""Last words of texts about the answers or the row, which are no part of the prompt."""
RATERS = _set("""
    ai answer annotator annotators chatgpt claude critic evaluator expert gpt human humans judge judges labeler llm meta
    model my overall rater raters the
""")
"""Who makes notes on answers."""
REMARKS = _set("""
    annotation annotations assessment assessments comment comments critique critiques evaluation evaluations note notes
    opinion opinions remark remarks review reviews
""")
"""Words of notes that may say that an answer is bad."""
FLIPS = _set("""
    exchanged flip flipped inverse invert inverted reverse reversed swap swapped switched
""")

_VALUES = _set("""
    ac acceptable accept accepted aligned approve approved bad banned best better blocked broken bronze chosen clean
    compliant contradiction correct deleted desirable disapproved discard discarded dislike disliked down downvote
    downvoted drop dropped entailment excellent fail failed failing failure faithful false flagged garbage gold good
    great hallucinated hallucination harmful harmless helpful ignored incorrect invalid irrelevant keep kept like liked
    lose loser loss lost misaligned negative no noisy nok ok okay partial pass passed perfect poor positive preferred
    published reject rejected relevant removed resolved retracted right safe satisfactory satisfied silver spam
    succeeded success successful supported terrible toxic true unacceptable undesirable unfaithful unhelpful unresolved
    unsafe unsatisfactory unsatisfied unsupported unusable up upvote upvoted usable useful useless valid veto wa win
    winner won worse worst wrong yes
""")
_BESIDE = _set("""
    a all an and answer as completely example extremely fully hard is label marked mostly non not of one partially
    partly quality response rather sample somewhat test tests the thumb thumbs very was
""")
_GRADES = _set("high low medium")
"""Words that are verdicts on a quality alone."""
_NO_VALUE = frozenset({"-", "–", "—", "?", ".", "..."})
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def words_of(name: str) -> list[str]:
    """Return the words of a column's name: ``chosenAnswer_id`` is chosen, answer, id."""
    return [word.lower() for word in _WORD.findall(name)]


def is_about(name: str) -> bool:
    """Return whether a column says something about a row, such as ``prompt_id`` or ``chosen_model``."""
    last = words_of(name)[-1:]
    return bool(last) and last[0] in _ABOUT


def is_kind(name: str) -> bool:
    """Return whether a column says of what kind a row is, or something else about it, and nothing of an answer."""
    words = words_of(name)
    if not LANGUAGES.isdisjoint(words):
        return True
    against = LABELS | SCORES if is_about(name) else LABELS | SCORES | WORSE
    return bool(words) and words[-1] in _ABOUT | _KINDS and against.isdisjoint(words)


def is_label(name: str, words: frozenset[str] = LABELS | SIDES) -> bool:
    """Return whether a column is named like a label or a side of a pair; ``kto_tag`` is one."""
    return "kto" in words_of(name) or (not is_about(name) and not words.isdisjoint(words_of(name)))


def is_verdict_word(text: str) -> bool:
    """Return whether a short text says how good something is, and nothing else: ``Rejected``, ``not good``, 👎, +."""
    if len(text) > 40 or text.strip() in _NO_VALUE:
        return False
    if not any(map(str.isalnum, text)):
        return True
    words = text.lower().replace("_", " ").replace("-", " ").split()
    words = [word.strip(".,:;!()[]\"'") for word in words if any(map(str.isalnum, word))]
    if "quality" in words and not _GRADES.isdisjoint(words):
        return _GRADES.union(_BESIDE).issuperset(words)
    return not _VALUES.isdisjoint(words) and _VALUES.union(_BESIDE).issuperset(words)
