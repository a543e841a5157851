"""The 25 verifiable instructions of IFEval (Zhou et al. 2023, arXiv:2311.07911).

Each check is a function of the response and of the instruction's own arguments, as the published data name them, and
follows the authors' program. Departures:

- sentences are counted by a rule here (a period, question or exclamation mark before white space, not after a title or
  other abbreviation, an initial, or the number of a list item), there by NLTK's model, which must be downloaded;
- a word in capitals is a run of letters and digits, with hyphens, apostrophes and periods inside: ``DON'T`` is one
  word, NLTK makes two of it;
- keywords are literal text, there they are regular expressions;
- an argument that is missing is an error, there it is drawn at random;
- the language is detected in the first 10,000 characters with a fixed seed, there with a new one each time.

All checks take linear time. As there, a text whose language cannot be detected counts as followed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Literal

from reward.verifiers.rules import detect_languages

Relation = Literal["at least", "less than"]

_OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]*_]*(?=\s)")
_NO_END = re.compile(  # text before a period that does not end a sentence
    r"(?:(?:^|\n)[ \t]*\d{1,3}"
    r"|(?<![\w.])(?i:mr|mrs|ms|dr|prof|rev|gen|sen|rep|st|vs|dept|approx|e\.g|i\.e|a\.m|p\.m)|(?<![\w.])[A-HJ-Z])$"
)
_REACH = 20  # characters before the period that decide this
_WORD_IN_CAPITALS = re.compile(r"\w+(?:[-.'’&]\w+)*")
_POSTSCRIPTS = {"P.S.": re.compile(r"p\.\s?s\."), "P.P.S": re.compile(r"p\.\s?p\.\s?s")}


def compare(number: int, relation: str, threshold: int) -> bool:
    """Compare with one of the instructions' two relations."""
    assert relation in ("at least", "less than"), relation
    return number >= threshold if relation == "at least" else number < threshold


def count_sentences(text: str) -> int:
    """Count sentences; text after the last end mark is one."""
    count = start = 0
    for match in _SENTENCE_END.finditer(text):
        before = text[max(start, match.start() - _REACH) : match.start()]
        if re.search(r"\w", before) and (match.group() != "." or not _NO_END.search(before)):
            count, start = count + 1, match.end()
    return count + bool(text[start:].strip())


def keywords_exist(response: str, keywords: Sequence[str]) -> bool:
    """Every keyword occurs, in any letter case, also inside words."""
    return all(keyword.lower() in response.lower() for keyword in keywords)


def keyword_frequency(response: str, keyword: str, frequency: int, relation: Relation) -> bool:
    """The keyword occurs this often, in any letter case, also inside words."""
    return compare(response.lower().count(keyword.strip().lower()), relation, frequency)


def forbidden_words(response: str, forbidden_words: Sequence[str]) -> bool:
    """None of the words occurs as a whole word."""
    return not any(re.search(rf"\b{re.escape(word)}\b", response, re.IGNORECASE) for word in forbidden_words)


def letter_frequency(response: str, letter: str, let_frequency: int, let_relation: Relation) -> bool:
    """The letter (or sign) occurs this often, in any letter case."""
    return compare(response.lower().count(letter.strip().lower()), let_relation, let_frequency)


def response_language(response: str, language: str) -> bool:
    """The most probable language is this one."""
    found = detect_languages(response)
    return not found or next(iter(found)) == language


def number_sentences(response: str, num_sentences: int, relation: Relation) -> bool:
    """There are this many sentences."""
    return compare(count_sentences(response), relation, num_sentences)


def number_words(response: str, num_words: int, relation: Relation) -> bool:
    """There are this many words: runs of letters and digits."""
    return compare(len(re.findall(r"\w+", response)), relation, num_words)


def number_paragraphs(response: str, num_paragraphs: int) -> bool:
    """Exactly this many paragraphs between ``***``; only the first and the last piece may be empty."""
    pieces = [bool(piece.strip()) for piece in response.split("***")]
    return all(pieces[1:-1]) and sum(pieces) == num_paragraphs


def nth_paragraph_first_word(response: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Exactly this many paragraphs between blank lines, and the n-th begins with the word."""
    pieces = response.split("\n\n")
    count = sum(bool(piece.strip()) for piece in pieces)
    if nth_paragraph > count or not pieces[nth_paragraph - 1].strip():
        return False
    word = pieces[nth_paragraph - 1].split()[0].lstrip("'").lstrip('"')
    return count == num_paragraphs and re.split(r"[.,?!'\"]", word)[0].lower() == first_word.lower()


def number_placeholders(response: str, num_placeholders: int) -> bool:
    """At least this many placeholders in square brackets, each within one line."""
    count = 0
    for line in response.split("\n"):
        at = line.find("[")
        while at >= 0 and (end := line.find("]", at)) >= 0:
            count += 1
            at = line.find("[", end)
    return count >= num_placeholders


def postscript(response: str, postscript_marker: str) -> bool:
    """The marker of the postscript occurs, in any letter case; "P.S." also as "P. S."."""
    marker = postscript_marker.strip()
    pattern = _POSTSCRIPTS.get(marker) or re.compile(re.escape(marker.lower()))
    return bool(pattern.search(response.lower()))


def number_bullet_lists(response: str, num_bullets: int) -> bool:
    """Exactly this many lines that begin with ``-`` or with one ``*``."""
    lines = [line.lstrip() for line in response.split("\n")]
    return sum(line.startswith("-") or bool(re.match(r"\*[^*]", line)) for line in lines) == num_bullets


def constrained_response(response: str) -> bool:
    """One of the three allowed answers occurs."""
    return any(option in response for option in _OPTIONS)


def number_highlighted_sections(response: str, num_highlights: int) -> bool:
    """At least this many parts ``*highlighted*`` or ``**highlighted**`` that are not empty."""
    single = re.findall(r"\*[^\n*]*\*", response)
    double = re.findall(r"\*\*[^\n*]*\*\*", response)
    return sum(bool(part.strip("*").strip()) for part in single + double) >= num_highlights


def multiple_sections(response: str, section_spliter: str, num_sections: int) -> bool:
    """At least this many headings such as "SECTION 1"."""
    return len(re.findall(rf"{re.escape(section_spliter.strip())}\s?\d+", response)) >= num_sections


def json_format(response: str) -> bool:
    """The whole response is JSON, perhaps in a Markdown fence."""
    text = response.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def title(response: str) -> bool:
    """A title in double angular brackets, ``<<title>>``, within one line."""
    for line in response.split("\n"):
        begin, end = line.find("<<"), line.rfind(">>")
        if begin >= 0 and end > begin + 2 and line[begin:end].lstrip("<").rstrip(">").strip():
            return True
    return False


def two_responses(response: str) -> bool:
    """Two different responses with ``******`` between them."""
    pieces = [piece.strip() for piece in response.split("******")]
    found = [piece for piece in pieces if piece]
    return all(pieces[1:-1]) and len(found) == 2 and found[0] != found[1]


def repeat_prompt(response: str, prompt_to_repeat: str) -> bool:
    """The response begins with the prompt, in any letter case."""
    return response.strip().lower().startswith(prompt_to_repeat.strip().lower())


def end_checker(response: str, end_phrase: str) -> bool:
    """The response ends with the phrase, in any letter case; quotation marks around it do not count."""
    return response.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def quotation(response: str) -> bool:
    """The whole response is in double quotation marks."""
    text = response.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


def english_capital(response: str) -> bool:
    """English without lower-case letters."""
    return response.isupper() and response_language(response, "en")


def english_lowercase(response: str) -> bool:
    """English without capital letters."""
    return response.islower() and response_language(response, "en")


def capital_word_frequency(response: str, capital_frequency: int, capital_relation: Relation) -> bool:
    """This many words are all in capital letters."""
    words = [word for word in _WORD_IN_CAPITALS.findall(response) if word.isupper()]
    return compare(len(words), capital_relation, capital_frequency)


def no_comma(response: str) -> bool:
    """There is no comma."""
    return "," not in response


CHECKS: dict[str, Callable[..., bool]] = {
    "change_case:capital_word_frequency": capital_word_frequency,
    "change_case:english_capital": english_capital,
    "change_case:english_lowercase": english_lowercase,
    "combination:repeat_prompt": repeat_prompt,
    "combination:two_responses": two_responses,
    "detectable_content:number_placeholders": number_placeholders,
    "detectable_content:postscript": postscript,
    "detectable_format:constrained_response": constrained_response,
    "detectable_format:json_format": json_format,
    "detectable_format:multiple_sections": multiple_sections,
    "detectable_format:number_bullet_lists": number_bullet_lists,
    "detectable_format:number_highlighted_sections": number_highlighted_sections,
    "detectable_format:title": title,
    "keywords:existence": keywords_exist,
    "keywords:forbidden_words": forbidden_words,
    "keywords:frequency": keyword_frequency,
    "keywords:letter_frequency": letter_frequency,
    "language:response_language": response_language,
    "length_constraints:nth_paragraph_first_word": nth_paragraph_first_word,
    "length_constraints:number_paragraphs": number_paragraphs,
    "length_constraints:number_sentences": number_sentences,
    "length_constraints:number_words": number_words,
    "punctuation:no_comma": no_comma,
    "startend:end_checker": end_checker,
    "startend:quotation": quotation,
}
"""Checks by the id of the instruction."""
