"""Marks of speakers in transcripts: where the assistant's turn begins that answers the last user's turn.

A word such as "Assistant:" is a mark by itself. A word that answers use too, such as "Answer:", is one only behind a
user's mark ("Question:"). Scripts without blanks need none before a mark.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["answer_start", "asks", "begins_with_turn", "is_transcript", "next_turn", "without_marks"]

_USER = """
    human|user|customer|client|person|prompter|question|q|instruction|instructions|input|query|prompt|problem|task
    |nutzer|benutzer|frage|utilisateur|usuario|pregunta|utente|domanda|usuário|pergunta|gebruiker|vraag|użytkownik
    |pytanie|пользователь|человек|вопрос|користувач|питання|kullanıcı|soru|người dùng|câu hỏi|pengguna|pertanyaan
    |المستخدم|السؤال|سؤال|کاربر|משתמש|שאלה|उपयोगकर्ता|प्रश्न|ব্যবহারকারী|প্রশ্ন
"""
_USER_UNSPACED = """
    用户|用戶|使用者|人类|人類|客户|客戶|提问|提問|问题|問題|指令|输入|问|問|ユーザー|ユーザ|人間|質問|指示|입력|사용자|질문
    |ผู้ใช้|คำถาม
"""
_ASSISTANT = """
    assistant|ai assistant|chatbot|bot|chatgpt|gpt|assistent|asistente|assistente|ассистент|помощник|асистент|asistan
    |trợ lý|asisten|المساعد|دستیار|עוזר|सहायक|সহকারী|asystent
"""
_ASSISTANT_UNSPACED = "助手|助理|机器人|機器人|客服|アシスタント|ボット|어시스턴트|도우미|챗봇|ผู้ช่วย"
_ANSWER = """
    answer|a|ai|response|reply|output|completion|model|agent|solution|antwort|réponse|respuesta|risposta|resposta|antwoord
    |odpowiedź|ответ|відповідь|cevap|yanıt|câu trả lời|trả lời|jawaban|الجواب|إجابة|جواب|پاسخ|תשובה|उत्तर|উত্তর
"""
_ANSWER_UNSPACED = "回答|答案|答复|答覆|回复|回覆|输出|輸出|答|応答|回答|出力|대답|답변|응답|답|คำตอบ"


def _words(text: str) -> str:
    words = {word.strip() for word in text.replace("\n", "").split("|")}
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


def _pattern(spaced: str, unspaced: str, tagged: str = "(?!)") -> re.Pattern[str]:
    r"""Return a pattern of marks, with their words in the group that matched.

    The marks are ``word:`` at the start of a line, after a blank or a sentence, ``### word`` as a heading, ``<|word|>``
    and the like, and in scripts without blanks ``word:`` anywhere.
    """
    colon = r"[ \t]?[\])*_]*[ \t]?[:\uff1a][*_]*"
    start = r"(?:(?<![^\s.!?;\u3002\uff01\uff1f\uff1b\u2026])|(?<=>))[*_>\[(]*"
    return re.compile(
        rf"{start}({_words(spaced)}){colon}"
        rf"|(?:^|\n)\#+[ \t]*({_words(spaced)}|{_words(unspaced)})[ \t]*(?:[:\uff1a]|(?=\n))"
        rf"|({_words(unspaced)}){colon}"
        rf"|<\|(?:im_start|start)\|>({tagged})|<\|start_header_id\|>({tagged})<\|end_header_id\|>"
        rf"|<start_of_turn>({tagged})|<[|\uff5c]({tagged})[|\uff5c]>|\[\|({tagged})\|\]|<({tagged})>",
        re.IGNORECASE,
    )


_USERS = _pattern(_USER, _USER_UNSPACED, "user|human|prompter")
_ASSISTANTS = _pattern(_ASSISTANT, _ASSISTANT_UNSPACED, "assistant|model|bot|chatbot")
_ANSWERS = _pattern(_ANSWER, _ANSWER_UNSPACED)
_CLOSES = re.compile(r"\[(/INST)\]")
"""Ends a user's turn, so that the assistant's begins."""
_OPENS = re.compile(r"(?:<s>)?\s*\[INST\]")
_TOKENS = re.compile(
    r"<\|(?:im_start|start|start_header_id)\|>system\b|<\|[a-z_]+\|>|</?s>|<(?:start|end)_of_turn>|<</?SYS>>|<bos>|\[/?SYSTEM_PROMPT\]"
)
"""Further tokens of chat templates."""
_PREAMBLE = re.compile(
    r"<\|[a-z_]+\|>|<s>|<bos>|\#+ ?system|system:|(?:below is an?|a chat between|the following is a|you are an?) ",
    re.IGNORECASE,
)
"""Beginnings that common templates put before the first turn of a user."""


def answer_start(text: str) -> int | None:
    """Return the end of the mark behind which the last answer of a transcript begins; None if no turn is marked."""
    users = list(_marks(_USERS, text))
    if users:
        label = users[0][2]
        asked = [end for _, end, word in users if word == label]
        for pattern in (_ASSISTANTS, _CLOSES, _ANSWERS):
            answers = [(start, end, word) for start, end, word in _marks(pattern, text) if start >= asked[0]]
            if answers:
                label = answers[0][2]
                return next((end for start, end, word in answers if word == label and start >= asked[-1]), None)
        return None
    answers = [(start, end) for pattern in (_ASSISTANTS, _CLOSES) for start, end, _ in _marks(pattern, text)]
    start, end = max(answers, default=(0, 0))
    return end if text[:start].strip() else None


def is_transcript(text: str) -> bool:
    """Return whether a text begins with a user's turn that an assistant's mark or another turn of the user follows."""
    start = text.lstrip()
    if _OPENS.match(start):
        return _CLOSES.search(start) is not None
    if (first := _USERS.match(start)) is None or first.lastindex is None:
        return False
    if next(_marks(_ASSISTANTS, start), None) is not None or _CLOSES.search(start):
        return True
    again = [word for _, _, word in _marks(_USERS, start) if word == first[first.lastindex].lower()]
    return len(again) > 1 and answer_start(start) is not None


def begins_with_turn(text: str, *, surely: bool = False) -> bool:
    """Return whether a text begins with a user's turn, maybe behind a preamble or a template's turn of the system.

    `surely`: not by a word and a colon, such as "Question:", with which answers begin too.
    """
    start = text.lstrip()
    first = _USERS.match(start)
    if _OPENS.match(start) or (first and not (surely and _unsure(first))):
        return True
    return _PREAMBLE.match(start) is not None and asks(start)


def _unsure(mark: re.Match[str]) -> bool:
    return mark[0][0] not in "#<[" and str(mark[1]).lower() not in ("human", "user")


def asks(text: str) -> bool:
    """Return whether a turn of a user is marked anywhere in a text."""
    return next(_marks(_USERS, text), None) is not None or _OPENS.search(text) is not None


def without_marks(text: str) -> str:
    """Return the words of a text without marks of speakers, with one blank between them."""
    for pattern in (_USERS, _ASSISTANTS, _ANSWERS, _CLOSES, _OPENS, _TOKENS):
        text = pattern.sub(" ", text)
    return " ".join(text.split())


def next_turn(prompt: str, answer: str) -> bool:
    """Return whether an answer goes on with another turn of the user who speaks in the prompt."""
    words = {word for _, _, word in _marks(_USERS, prompt)}
    lines = (word for start, _, word in _marks(_USERS, answer) if not answer[:start].rpartition("\n")[2].strip())
    return not words.isdisjoint(lines)


def _marks(pattern: re.Pattern[str], text: str) -> Iterator[tuple[int, int, str]]:
    """Yield start, end and word of each mark; inside a line a word begins with a capital letter."""
    for found in pattern.finditer(text):
        group = found.lastindex
        assert group is not None
        word, start = found[group], found.start(group)
        line = text[: found.start()].rpartition("\n")[2]
        if word[0].islower() and line.strip() and text[start - 1 : start] not in ("|", "<", ">"):
            continue
        yield found.start(), found.end(), word.lower()
