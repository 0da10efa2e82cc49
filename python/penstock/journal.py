"""What a ``map`` has done so far, in a file: a second run of the same map goes on where the first stopped.

One line of JSON for each finished item, in the order in which they finished. A line is written in one piece and at
once, so a process that is killed loses nothing that was finished; of a machine that loses its power the last seconds
may be missing. A line that was cut short is left out, and its item is done again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

_FORMAT = 1
#: Of a digest of 256 bits, so much names an item.
_DIGITS = 32


class Journal:
    """The journal of one ``map``, while it runs. Several threads may write to it.

    Items and results are what JSON can hold. An item is known by what it is, not by its place: items may come in
    another order, or be more, in the next run. Of equal items each is done, and each is known.

    Raises:
        TypeError: for an item or a result that JSON cannot hold.
        ValueError: for a file that is no journal, is damaged, or is one of another function.
        RuntimeError: while another ``map`` uses the file.
        OSError: as files do.
    """

    def __init__(self, path: str | os.PathLike[str], function: object) -> None:
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"journal must be a path or None, not {path!r}")
        self._path = os.fspath(path)
        self._function = str(getattr(function, "__qualname__", type(function).__qualname__))
        self._lock = threading.Lock()
        self._seen: dict[str, int] = {}
        self._done: dict[str, Any] = {}
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0), 0o666)
        try:
            self._claim()
            self._read()
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            file, self._file = self._file, -1
            try:
                os.fsync(file)
            finally:
                os.close(file)

    def name(self, item: object) -> str:
        """What ``item`` is known by: its digest, and its number among those equal to it."""
        try:
            text = json.dumps(item, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        except (TypeError, ValueError, RecursionError) as error:
            message = "items of a map with a journal must be what JSON can hold"
            raise TypeError(f"{message}, not {_shown(item)} ({error}); map over their names instead") from None
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
        with self._lock:
            count = self._seen[digest] = self._seen.get(digest, 0) + 1
        return digest if count == 1 else f"{digest}-{count}"

    def knows(self, name: str) -> bool:
        """Whether the item of that name was done by an earlier run."""
        return name in self._done

    def recall(self, name: str) -> Any:
        """The result of an item that was done by an earlier run."""
        return self._done.pop(name)

    def note(self, name: str, result: object) -> Any:
        """Write down the result of an item, and give it as the next run will: as JSON holds it."""
        try:
            line = json.dumps({"item": name, "result": result}, ensure_ascii=False, separators=(",", ":"))
        except (TypeError, ValueError, RecursionError) as error:
            message = "results of a map with a journal must be what JSON can hold"
            raise TypeError(f"{message}, not {_shown(result)} ({error}); return what you need of it") from None
        self._write(line)
        return json.loads(line)["result"]

    def _claim(self) -> None:
        """Keep the file to this run. The claim ends with the process, however that ends."""
        try:
            import fcntl
        except ImportError:  # Windows: two runs at once are the user's to avoid
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(f"another map uses the journal {self._path!r}") from None
        except OSError:  # a file system without locks
            return

    def _read(self) -> None:
        with open(self._file, "rb", closefd=False) as file:
            good = 0
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    self._repair(line, number, good)
                    break
                self._take(line, number)
                good += len(line)
        if good == 0:
            head = {"penstock_journal": _FORMAT, "function": self._function}
            self._write(json.dumps(head, ensure_ascii=False))

    def _take(self, line: bytes, number: int) -> None:
        entry: Any = None
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
        if number == 1:
            if not isinstance(entry, dict) or entry.get("penstock_journal") != _FORMAT:
                raise ValueError(f"{self._path!r} is no journal of penstock; it is left as it is")
            if entry.get("function") != self._function:
                message = f"{self._path!r} is the journal of a map of {entry.get('function')}, not of {self._function}"
                raise ValueError(f"{message}: give it another path, or remove the file")
        elif isinstance(entry, dict) and isinstance(entry.get("item"), str) and "result" in entry:
            self._done[entry["item"]] = entry["result"]
        else:
            raise ValueError(f"the journal {self._path!r} is damaged: line {number} is {line[:80]!r}")

    def _repair(self, line: bytes, number: int, good: int) -> None:
        """Take away a line that was cut short, by a kill or a full disk."""
        if number == 1 and not b'{"penstock_journal"'.startswith(line[:19]):
            raise ValueError(f"{self._path!r} is no journal of penstock; it is left as it is")
        os.ftruncate(self._file, good)

    def _write(self, line: str) -> None:
        data = line.encode("utf-8", "surrogatepass") + b"\n"
        with self._lock:
            if self._file < 0:
                return  # a call that outlived its map: nobody waits for its result
            start = os.fstat(self._file).st_size
            try:
                while data:
                    data = data[os.write(self._file, data) :]
            except OSError:
                os.ftruncate(self._file, start)  # a full disk: what comes next must not be glued to half a line
                raise


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
