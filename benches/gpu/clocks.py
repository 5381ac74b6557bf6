"""The clock of the multiprocessors while something runs, by NVIDIA's own program where it is there."""
import os
import subprocess
import threading
import time

MILLISECONDS = 250


class Clocks:
    """Looks at the clock all the time; `between` tells what it saw."""

    def __init__(self):
        self.seen = []
        ask = ["nvidia-smi", "--query-gpu=clocks.sm", "--format=csv,noheader,nounits", "-i", "0", "-lms", str(MILLISECONDS)]
        # A terminal, since what goes to a pipe may wait in a buffer.
        ours, theirs = os.openpty()
        try:
            self.program = subprocess.Popen(ask, stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.DEVNULL)
        except OSError:
            self.program = None
            os.close(ours)
        else:
            threading.Thread(target=self.listen, args=(ours,), daemon=True).start()
        os.close(theirs)

    def listen(self, ours):
        try:
            with open(ours, "r") as lines:
                for line in lines:
                    if line.strip().isdigit():
                        self.seen.append((time.monotonic(), int(line)))
        except OSError:  # how the end of a terminal reads
            pass

    def between(self, start, end):
        """Least, middle and greatest clock in that time and how often it was looked at, or None."""
        mhz = sorted(mhz for at, mhz in list(self.seen) if start <= at <= end)
        if not mhz:
            return None
        return {"min": mhz[0], "median": mhz[len(mhz) // 2], "max": mhz[-1], "times": len(mhz)}

    def close(self):
        if self.program is not None:
            self.program.kill()
            self.program.wait()
