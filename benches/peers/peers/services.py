"""A peer as a process: started, watched, stopped."""

import subprocess
from pathlib import Path

# How long one may take to leave after SIGTERM; Kafka Connect stops its connectors first.
STOP_TIMEOUT_S = 30

# Lines of its log that are shown when it has ended badly.
LOG_LINES = 15


class Service:
    """A running process; as a context, it is stopped at the end whatever happens."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path, talks: bool = False) -> None:
        """`talks`: it is spoken to by its standard input and output, and only errors go to the log."""
        self.name = Path(command[0]).name
        self.log = log
        pipe = subprocess.PIPE if talks else None
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                command, env=environment, stdin=pipe or subprocess.DEVNULL, stdout=pipe or file, stderr=file, text=True
            )

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    def check(self) -> None:
        """Fails when it has ended."""
        status = self.process.poll()
        if status is not None:
            raise RuntimeError(f"{self.name} has ended with status {status}: {self.last_words()}")

    def last_words(self) -> str:
        """The end of its log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(["", *lines[-LOG_LINES:]])

    def say(self, line: str) -> None:
        """To one that talks."""
        assert self.process.stdin, "it talks"
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        """The next line of one that talks."""
        assert self.process.stdout, "it talks"
        line = self.process.stdout.readline()
        if not line:
            self.process.wait(STOP_TIMEOUT_S)
            self.check()
        return line

    def stop(self) -> None:
        """Asks it to end, then makes it."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()

    def __enter__(self) -> "Service":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
