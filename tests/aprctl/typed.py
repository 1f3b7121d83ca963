"""Lines that are typed on a terminal: `aprctl run --chat` on a pseudo-terminal.

usage: typed.py typed
APRCTL is the program; APR_TEST_EDITING is 1 where it was built with libedit. Exits with 77 when no model ships with this build.
"""
import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import termios
import time

from calls import APRCTL, SHIPPED_MODEL, check, expect, main

EDITING = os.environ.get("APR_TEST_EDITING") == "1"
QUESTION = "Who keeps the light?"
UP, LEFT, HOME = b"\x1b[A", b"\x1b[D", b"\x01"


class Chat:
    """A chat whose input and messages are on a terminal; its answers are in a file."""

    def __init__(self, folder, **env):
        self.answers = open(os.path.join(folder, "answers"), "w+b")
        self.shown = b""
        self.terminal, inside = pty.openpty()
        full = {k: v for k, v in os.environ.items() if not k.startswith(("APR_", "LC_", "LANG"))}
        self.run = subprocess.Popen([APRCTL, "run", "--chat", "-q", "-n", "24", "--threads", "1"], stdin=inside, stdout=self.answers, stderr=inside,
                                    env={**full, "TERM": "xterm", "HOME": folder, **env}, start_new_session=True)
        self.inside = inside
        self.edited = EDITING and env.get("TERM") != "dumb"
        self.prompt(1)

    def read(self, until, what, seconds=60):
        end = time.monotonic() + seconds
        while not until():
            ready, _, _ = select.select([self.terminal], [], [], max(0, end - time.monotonic()))
            if not ready:
                check(False, f"{what} does not come; shown: {self.shown}")
                return
            self.shown += os.read(self.terminal, 4096)

    def prompt(self, n):
        self.read(lambda: len(re.findall(rb"(?:^|\n)(?:\x1b\[\w)*> ", self.shown)) >= n, f"prompt {n}")
        # The editor prints it a moment before it takes over the terminal. No person types so fast, but this does.
        end = time.monotonic() + 60
        while self.edited and self.modes() & termios.ICANON:
            if time.monotonic() > end:
                check(False, "no editing on a terminal")
                return
            time.sleep(0.002)

    def answered(self):
        """The answers so far, one for each turn."""
        self.answers.seek(0)
        return [answer.strip() for answer in self.answers.read().decode().split("\n") if answer.strip()]

    def type(self, keys, prompts):
        os.write(self.terminal, keys)
        self.prompt(prompts)

    def end(self, keys=b"\x04"):
        os.write(self.terminal, keys)
        return self.run.wait(timeout=60)

    def modes(self):
        return termios.tcgetattr(self.inside)[3]


def typed():
    if not os.path.exists(SHIPPED_MODEL):
        print("skipped: no model ships with this build")
        sys.exit(77)
    wanted = expect(0, ["run", "--chat", "-q", "-n", "24", "--threads", "1", "-p", QUESTION]).strip().replace("\n", " ")
    with tempfile.TemporaryDirectory() as folder:
        chat = Chat(folder)
        chat.type(QUESTION.encode() + b"\r", 2)
        check(chat.answered() == [wanted], f"a line as it is: {chat.answered()}, expected {wanted}")
        check(chat.end() == 0, "Ctrl-D does not end a chat well")

        # A terminal that cannot place its cursor, and lines as its driver reads them.
        chat = Chat(folder, TERM="dumb")
        chat.type(b"Who keeps the lights\x7f?\r", 2)
        check(chat.answered() == [wanted], f"a dumb terminal: {chat.answered()}")
        check(b"\x1b" not in chat.shown, f"escape sequences on a dumb terminal: {chat.shown}")
        check(chat.end(b"\r") == 0, "an empty line does not end a chat well")

        if not EDITING:
            print("built without libedit: nothing more to test")
            return
        # In the "C" locale too, a letter of several bytes is one letter.
        for locale in ({}, {"LC_ALL": "C"}, {"LC_ALL": "C.UTF-8"}):
            chat = Chat(folder, **locale)
            chat.type("ho keeps the lightsé?".encode() + LEFT + b"\x7f\x7f" + HOME + b"W\r", 2)
            check(chat.answered() == [wanted], f"an edited line, {locale}: {chat.answered()}, expected {wanted}")
            chat.end()

        # An earlier line comes back, and nothing of it is kept after the end.
        chat = Chat(folder)
        first = QUESTION.encode() + b"\r"
        chat.type(first, 2)
        before = chat.shown.count(QUESTION.encode())
        chat.type(UP + b"\r", 3)
        check(chat.shown.count(QUESTION.encode()) > before, f"Up shows no earlier line: {chat.shown}")
        check(len(chat.answered()) == 2, f"the line that came back was not answered: {chat.answered()}")
        check(chat.end() == 0, "Ctrl-D after a line that came back")
        chat = Chat(folder)
        before = len(chat.shown)
        chat.type(UP + first, 2)
        check(chat.answered() == [wanted], f"a line of another run came back: {chat.answered()}")
        chat.end()
        check(sorted(os.listdir(folder)) == ["answers"], f"left behind: {os.listdir(folder)}")

        # Ctrl-C at the prompt ends the program, as without editing, and the terminal is as it was.
        chat = Chat(folder)
        chat.run.send_signal(signal.SIGINT)
        check(chat.run.wait(timeout=60) == -signal.SIGINT, f"SIGINT at the prompt: {chat.run.returncode}")
        check(chat.modes() & termios.ICANON and chat.modes() & termios.ECHO, "the terminal stays as editing needs it")


main({"typed": typed})
