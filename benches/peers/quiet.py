"""Run a command while the machine is otherwise idle, and say how much others took meanwhile."""
import os
import resource
import subprocess
import time

TICKS = os.sysconf("SC_CLK_TCK")
IDLE = 0.93  # share of the processors that counts as idle
LONGEST_WAIT = 300  # seconds


def busy_and_all(line):
    """Seconds of all processors that were not idle, and all seconds, of the first line of /proc/stat.

    Time that the host took away (steal) is not idle; a guest's time is in the user's already.
    """
    user, nice, system, idle, waiting, interrupt, soft, steal = map(int, line.split()[1:9])
    busy = user + nice + system + interrupt + soft + steal
    return busy / TICKS, (busy + idle + waiting) / TICKS


def processors():
    with open("/proc/stat") as stat:
        return busy_and_all(stat.readline())


def wait():
    """Until the machine was idle for two seconds; gives up after a while, since a busy run is refused anyway."""
    end, calm = time.monotonic() + LONGEST_WAIT, 0
    while calm < 4 and time.monotonic() < end:
        busy, total = processors()
        time.sleep(0.5)
        busy_later, total_later = processors()
        idle = 1 - (busy_later - busy) / max(total_later - total, 1e-9)
        calm = calm + 1 if idle >= IDLE else 0


def run(command):
    """What a command prints, and the share of all processors that others took while it ran."""
    own = children()
    busy, total = processors()
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    busy_later, total_later = processors()
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}\nended with {done.returncode}:\n{done.stderr}")
    others = (busy_later - busy) - (children() - own)
    return done.stdout, max(0.0, others) / max(total_later - total, 1e-9)


class Watch:
    """The share of all processors that others than these processes take inside of a `with`."""

    def __init__(self, pids):
        self.pids = pids

    def __enter__(self):
        self.own, (self.busy, self.total) = self.used(), processors()
        return self

    def __exit__(self, *_):
        busy, total = processors()
        others = (busy - self.busy) - (self.used() - self.own)
        self.others = max(0.0, others) / max(total - self.total, 1e-9)

    def used(self):
        """Seconds of processor time of all threads of the processes, and of this one."""
        return sum(map(used, [*self.pids, "self"]))


def used(pid):
    with open(f"/proc/{pid}/stat") as stat:
        user, system = stat.read().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / TICKS


def children():
    """Seconds of processor time of children that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
