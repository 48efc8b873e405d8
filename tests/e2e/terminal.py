"""Drives a command on a pseudo-terminal, the way a person would.

usage: terminal.py STEP... -- COMMAND...

Steps, in order:
  expect:TEXT   wait (10 s) until the output since the last expect contains TEXT
  send:TEXT     write TEXT; \\r \\n and \\xNN escapes are understood
  size:RxC      change the window size
  sleep:SEC     pause
  eof           hang up the terminal
After the last step the command has 10 s to end. Prints everything it wrote; exits with its exit code
(126 on an expectation that was not met, 124 when it does not end).
"""

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time


def main() -> int:
    split = sys.argv.index("--")
    steps, command = sys.argv[1:split], sys.argv[split + 1 :]
    pid, fd = pty.fork()
    if pid == 0:
        os.execvp(command[0], command)
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    seen = bytearray()
    mark = 0
    code = None

    def pump(timeout: float) -> bool:
        """Reads what is there; False once the terminal is closed."""
        ready, _, _ = select.select([fd], [], [], timeout)
        if not ready:
            return True
        try:
            data = os.read(fd, 65536)
        except OSError:
            return False
        seen.extend(data)
        return bool(data)

    for step in steps:
        verb, _, arg = step.partition(":")
        if verb == "expect":
            deadline = time.monotonic() + 10
            while arg.encode() not in seen[mark:]:
                if time.monotonic() > deadline or not pump(0.1):
                    sys.stdout.buffer.write(bytes(seen))
                    print(f"\n[expected {arg!r}]")
                    os.kill(pid, signal.SIGKILL)
                    return 126
            mark = seen.index(arg.encode(), mark) + len(arg.encode())
        elif verb == "send":
            os.write(fd, arg.encode().decode("unicode_escape").encode("latin-1"))
        elif verb == "size":
            rows, cols = (int(n) for n in arg.split("x"))
            fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
            os.kill(pid, signal.SIGWINCH)
        elif verb == "sleep":
            until = time.monotonic() + float(arg)
            while time.monotonic() < until and pump(0.05):
                pass
        elif verb == "eof":
            os.close(fd)
            fd = os.open("/dev/null", os.O_RDONLY)
        else:
            raise SystemExit(f"unknown step {step!r}")

    deadline = time.monotonic() + 10
    while code is None and time.monotonic() < deadline:
        if not pump(0.05):
            time.sleep(0.02)
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
    while pump(0) and select.select([fd], [], [], 0)[0]:
        pass
    sys.stdout.buffer.write(bytes(seen))
    sys.stdout.flush()
    if code is None:
        os.kill(pid, signal.SIGKILL)
        return 124
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
