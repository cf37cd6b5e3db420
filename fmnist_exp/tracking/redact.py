"""Make texts safe to show and to store: remove passwords and tokens, and shorten errors to one line.

Two rules complement each other. The first one knows the secrets, which are those of the environment and of the
addresses that `remember` was given; it finds them anywhere, raw or URL-encoded. The second one recognises the parts of
an address that hold secrets, in addresses that nobody announced.
"""

import base64
import functools
import html
import json
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import unquote, unquote_plus

MASK = "***"
PREAMBLE = "(raised as a result of"  # SQLAlchemy says first in which of its own steps an error came
SHORTEST = 4  # characters; a shorter secret is found in addresses only
UNMISTAKABLE = 8  # characters from which on a secret that is no plain word is found within other words too
TOKEN_LENGTH = 16  # characters from which on a user without a password is taken for a token

# environment variables whose whole value is a secret, and those whose value everybody may see
SECRET_VARIABLE = re.compile(
    r"(PASSWORD|PASSWD|PASSPHRASE|_PWD|_PASS|SECRET|TOKEN|CREDENTIALS?"
    r"|(API|ACCESS|SECRET|PRIVATE|SIGNING|ACCOUNT|ENCRYPTION)_?KEY)$",
    re.IGNORECASE,
)
PUBLIC_VARIABLE = re.compile(r"(USER|USERNAME|LOGNAME|_ID|HOST|DATABASE)$", re.IGNORECASE)
SETTINGS = {"true", "false", "yes", "no", "none", "null", "on", "off"}  # values that are no secrets

_NAME = (
    r"[\w.-]*(?:password|passwd|passphrase|pwd|token|secret|credentials?|signature"
    r"|(?:api|access|account|private|signing)[_-]?key)|sig"
)
# in one address: a value lasts until the next parameter, and may contain anything else
_PARAMETER = re.compile(rf"(?i)[?&;](?:{_NAME})=([^&]*)|(?<![\w.-])(?:{_NAME})=([^&;]*)")
# in any text
_PATTERNS = [
    (re.compile(r"(?<=://)[^/\s]+@"), f"{MASK}@"),
    # a password that holds slashes or spaces, but no port
    (
        re.compile(
            r"(?<=://)[^\s/@:\[]*:(?!\s)(?!\d{1,5}(?:[/?#\s'\"),.;\]}>]|$))"
            r"(?:(?!://)[^\n])*?@(?=[\w\[*])(?:[^\s/@]*@)*"
        ),
        f"{MASK}@",
    ),
    (re.compile(rf"(?i)(?<![\w.-])({_NAME})=(?:'[^'\n]*'|\"[^\"\n]*\"|[^&;\s'\"<>]+)"), rf"\1={MASK}"),
    (re.compile(rf"(?i)(['\"](?:{_NAME})['\"]\s*:\s*)(?:'[^'\n]*'|\"[^\"\n]*\")"), rf"\1'{MASK}'"),
    (re.compile(r"(?i)(authorization['\"]?\s*[:=]\s*(?:b?['\"])?\w+\s+)[^\s'\"]+"), rf"\1{MASK}"),
]

_told: set[str] = set()


def remember(text: str) -> bool:
    """Hide the secrets of an address, for example an option's value, from now on; return True if it has any."""
    found = _of_address(text)
    _told.update(found)
    return bool(found)


def without_secrets(text: str) -> str:
    """Return the text with `***` in place of every password and token, and of the users in its addresses."""
    return _masked(text, _known(frozenset(_told), frozenset(os.environ.items())))


def public(address: str) -> str:
    """Return an address with `***` in place of its user, password and tokens.

    The result depends on nothing else, so that two processes can compare their addresses.
    """
    return _masked(address, _pattern(_of_address(address)))


def shell_command(words: Sequence[str]) -> str:
    """Return a command to copy into a shell, without secrets; a comment says if some are missing."""
    command = shlex.join(map(without_secrets, words))
    return f"{command}  # with the user and password in the place of {MASK}" if MASK in command else command


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type if it has none, without secrets."""
    lines = [line for line in without_secrets(str(error).strip()).splitlines() if not line.startswith(PREAMBLE)]
    return lines[0] if lines else type(error).__name__


def _masked(text: str, known: re.Pattern[str] | None) -> str:
    if known is not None:
        text = known.sub(MASK, text)
    for pattern, shown in _PATTERNS:
        text = pattern.sub(shown, text)
    return text


@functools.lru_cache(maxsize=8)
def _known(told: frozenset[str], environment: frozenset[tuple[str, str]]) -> re.Pattern[str] | None:
    """Return a pattern for the secrets that this process knows, or None if there are none."""
    return _pattern(told | _of_environment(dict(environment)))


def _of_environment(variables: Mapping[str, str]) -> set[str]:
    """Return the secrets in the values of environment variables."""
    found = set[str]()
    for name, value in variables.items():
        if SECRET_VARIABLE.search(name):
            if not os.path.exists(value):  # else it is where the secret lies
                found |= {value, unquote(value)}
        else:
            found |= _of_address(value)
    user, password = (variables.get(f"MLFLOW_TRACKING_{name}") for name in ("USERNAME", "PASSWORD"))
    if user and password:
        found.add(_basic(user, password))
    public = {value for name, value in variables.items() if PUBLIC_VARIABLE.search(name)}
    return {value for value in found if value not in public or not value.isalpha()}


def _of_address(text: str) -> set[str]:
    """Return the secrets in an address, or in several: passwords, tokens in a user's place, and those of parameters.

    A password may contain the characters that separate the parts of an address. Libraries then show its pieces, for
    example as the name of a host, so that the pieces count as secrets too.
    """
    found = {next(filter(None, match.groups()), "") for match in _PARAMETER.finditer(text)}
    found |= {value.partition(";")[0] for value in found}
    for address in re.split(r"[\w+.-]*://", text)[1:]:
        rest = re.split(r"\?(?=[\w.-]+=)", address)[0]
        user, colon, tail = rest.partition(":")
        if "@" in user.partition("/")[0]:
            token = user.partition("@")[0]
            found |= {token} if len(token) >= TOKEN_LENGTH else set()
        elif colon and "@" in tail:
            password, _, place = tail.rpartition("@")
            found |= {password, tail.partition("@")[0], _basic(unquote(user), unquote(password))}
            if not re.match(r"\d{1,5}/", tail):  # what looks like a port and a path may be one, which has no pieces
                found |= set(re.split(r"[/@#?: ]", password))
            found -= {user, *re.split(r"[/?:]", place)}  # words that the address shows anyway
    return {form for value in found for form in (value, unquote(value), unquote_plus(value))}


def _basic(user: str, password: str) -> str:
    """Return user and password as HTTP's basic authentication sends them."""
    return base64.b64encode(f"{user}:{password}".encode("utf-8", "surrogateescape")).decode()


def _pattern(secrets: Iterable[str]) -> re.Pattern[str] | None:
    usable = {secret for secret in secrets if len(secret) >= SHORTEST and secret.lower() not in SETTINGS}
    usable = {secret for secret in usable if not (secret.isdigit() and len(secret) < UNMISTAKABLE)}
    parts = []
    for secret in sorted(usable, key=len, reverse=True):
        spelled = "".join(map(_spellings, secret))
        mistakable = len(secret) < UNMISTAKABLE or (secret.isalpha() and secret in (secret.lower(), secret.upper()))
        parts.append(rf"(?<![^\W_]){spelled}(?![^\W_])" if mistakable else spelled)
    return re.compile("|".join(parts)) if parts else None


def _spellings(character: str) -> str:
    """Return a pattern for a character as it is, in a URL, in HTML, in JSON, in Python and in a shell's command."""
    if character.isascii() and character.isalnum():
        return character
    encoded = "".join(rf"%(?:25)*(?i:{byte:02x})" for byte in character.encode("utf-8", "surrogateescape"))
    others = {html.escape(character), f"&#{ord(character)};", json.dumps(character)[1:-1], repr(character)[1:-1]}
    others |= {f"\\{character}", {" ": "+", "'": "'\"'\"'"}.get(character, character)}
    raw = sorted({re.escape(text) for text in (character, *others)}, key=len, reverse=True)
    return f"(?:{'|'.join([encoded, *raw])})"
