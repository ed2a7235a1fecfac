"""Every fault at random, over hours if you like; then compare with the run that met none (Linux).

    python tests/chaos.py                            # two minutes of it
    python tests/chaos.py --rows 2000 --seconds 3600 --seed 7

One root is filled without a fault. Another one is filled through three proxies, one of them SOCKS, while each of them
in turn refuses, limits, breaks or dies, workers and whole runs are killed, the disk fills up and the ledger is lost.
Then the weather clears, the same command runs once more, and both roots are compared: clip by clip, record by record.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import os
import pathlib
import random
import signal
import subprocess
import tempfile
import time
from collections import Counter

import youtube
from conftest import Program, kill_session, may_mount, processes_of, proxy_before, small_disk, wait_for, workers_of

WEATHER = [  # what a proxy may meet, and how likely each request then meets it
    *(
        (weather, 1.0)
        for weather in ['bot', 'captcha', 'rate', 'player 429', 'player 403', 'media 403', 'dead', 'media stall']
    ),
    *(
        (weather, 0.5)
        for weather in ['player 500', 'player drop', 'player garbage', 'media 500', 'media drop', 'media truncate']
    ),
]
GONE = ['private', 'removed', 'terminated', 'copyright', 'country', 'age', 'members']
FLAGS = ['--num-processes', '6', '--timeout', '1.5', '--clip-timeout', '10', '--retry-pause', '0.1']


@dataclasses.dataclass
class Report:
    """What was done to the program, what it cost, and how the outcome differs from the fault-free run's."""

    did: Counter[str]
    asked: Counter[str]
    fair: Counter[str]
    differences: list[str]

    def __str__(self) -> str:
        waste = {kind: f'{self.asked[kind]} for {self.fair[kind]}' for kind in ('player', 'page', 'media')}
        lines = [f'{n:5} × {what}' for what, n in sorted(self.did.items())]
        asked = ', '.join(f'{kind} requests {figure}' for kind, figure in waste.items())
        return '\n'.join(
            [*lines, f'{asked}; {self.asked["refused"]} of them refused', *(self.differences or ['no difference'])]
        )


def offer(program: Program, count: int, dice: random.Random) -> None:
    rows = youtube.rows(count, seed=dice.randrange(1 << 30))
    program.offer(*rows)
    for row in dice.sample(rows, count // 10):
        program.site.videos[row[:11]] = youtube.Video(fault=dice.choice(GONE))
    for row in dice.sample(rows, count // 20):
        program.site.videos[row[:11]] = youtube.Video(lacks='audio/mp4')


class Demon:
    """Does one thing after another to a run and its surroundings."""

    def __init__(self, program: Program, dice: random.Random, held: contextlib.ExitStack) -> None:
        self.program, self.dice, self.did = program, dice, Counter[str]()
        self.doors = [program.site.door() for _ in range(3)]
        socks = held.enter_context(proxy_before(self.doors[-1], 'socks5h'))
        self.proxies = [*(door.url for door in self.doors[:-1]), socks]
        self.process: subprocess.Popen | None = None
        self.log = program.root.parent / 'log'

    def start(self) -> None:
        pauses = ['--pause', '0.3', '--longest-pause', '1.5']
        with open(self.log, 'a') as log:
            self.process = self.program.start(*FLAGS, *pauses, '--proxies', *self.proxies, stdout=log, stderr=log)

    def weather(self) -> None:
        door = self.dice.choice(self.doors)
        door.weather, door.chance = self.dice.choice(WEATHER)
        self.did[f'a proxy met: {door.weather}'] += 1

    def everywhere(self) -> None:
        weather, _ = self.dice.choice(WEATHER)
        self.program.site.weather = weather
        self.did[f'everything met: {weather}'] += 1

    def clear(self) -> None:
        for door in self.doors:
            door.weather, door.chance, door.budget = '', 1.0, 0

    def budget(self) -> None:
        door = self.dice.choice(self.doors)
        door.budget, door.window = 10, 1.5
        self.did['a proxy had a budget of 10 videos in 1.5 s'] += 1

    def kill_worker(self) -> None:
        if workers := workers_of(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.dice.choice(workers), signal.SIGKILL)
                self.did['kill -9 of a worker'] += 1

    def kill_all(self) -> None:
        kill_session(self.process)
        self.did['kill -9 of everything'] += 1
        self.start()

    def interrupt(self) -> None:
        self.process.send_signal(self.dice.choice([signal.SIGINT, signal.SIGTERM]))
        self.process.wait(100)
        self.did['interrupted'] += 1
        self.start()

    def lose(self) -> None:
        kill_session(self.process)
        self.program.lose_ledgers()
        self.did['the ledger was lost'] += 1
        self.start()

    def fill_disk(self) -> None:
        """Where the root is a small file system: take all that is left of it, until the run has stopped."""
        if not os.path.ismount(self.program.root):
            return
        ballast = self.program.root / 'ballast'
        with contextlib.suppress(OSError), open(ballast, 'wb', buffering=0) as file:
            while file.write(bytes(1 << 14)):
                pass
        status = self.process.wait(100)
        ballast.unlink()
        self.did[f'the disk was full (exit {status})'] += 1
        self.start()

    def act(self) -> None:
        rare = [self.kill_all, self.interrupt, self.lose, self.fill_disk, self.everywhere]
        often = [self.weather, self.weather, self.weather, self.clear, self.clear, self.budget, self.kill_worker]
        self.dice.choice([*rare, *often, *often])()


def state(program: Program) -> dict[str, dict[str, object]]:
    """What a user has in the end: the records without what may differ, the clips' content, why the others are gone."""
    records = {key: {**record, 'duration': round(record['duration'], 1)} for key, record in program.metadata.items()}
    clips = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in program.clips()}
    gone = {key: reason for key, (status, reason) in program.reasons.items() if status == 'gone'}
    return {'record': records, 'clip': clips, 'gone': gone}


def compare(fair: Program, rough: Program) -> list[str]:
    expected, found, differences = state(fair), state(rough), []
    for key, record in found['record'].items():
        if not record['title'] and not record['format_id'] and key in expected['record']:  # of a clip that was adopted
            expected['record'][key] |= {'title': '', 'format_id': ''}
    for kind in expected:
        ours, theirs = expected[kind], found[kind]
        differences += [f'{kind} {key} differs: {theirs.get(key)} for {ours.get(key)}'
                        for key in sorted(ours.keys() | theirs.keys()) if ours.get(key) != theirs.get(key)]  # fmt: skip
    settled = Counter(name for name, *_ in rough.settled)
    differences += [f'{name} is {n} clips in the ledger' for name, n in settled.items() if n > 1]
    return differences + [
        f'{path} is left over' for path in [*rough.leftovers(), *(rough.root / 'wavs').glob('.parts*/*')]
    ]


def trial(folder: pathlib.Path, rows: int, seed: int, seconds: float) -> Report:
    """The fault-free run, the rough one, and what tells them apart."""
    dice = random.Random(seed)
    disk = small_disk(folder / 'rough', 20 + rows * 0.3) if may_mount() else contextlib.nullcontext()
    with youtube.YouTube(latency=0.02) as site, disk, contextlib.ExitStack() as held:
        fair, rough = Program(folder / 'fair', site), Program(folder / 'rough', site)
        offer(fair, rows, dice)
        fair.run(*FLAGS)
        calm, before = site.counts.copy(), time.monotonic()
        demon = Demon(rough, dice, held)
        demon.start()
        while time.monotonic() < before + seconds:
            time.sleep(dice.uniform(0.2, 1.5))
            if demon.process.poll() is not None:
                demon.did[f'it ended by itself (exit {demon.process.returncode})'] += 1
                if demon.process.returncode == 0:
                    break
                demon.start()
            demon.act()
        demon.clear()
        demon.process.wait(120)
        fragile = {*(row for row, video in site.videos.items() if video.fault)}
        failed = {key for key, (status, _) in rough.reasons.items() if status == 'failed'} - fragile
        demon.did['rows that failed meanwhile, through four tries in bad weather'] = len(failed)
        rough.run(*FLAGS)
        differences = compare(fair, rough)
        said = demon.log.read_text()
        if 'Traceback' in said:
            differences.append(f'a traceback: {said[said.index("Traceback") - 200 :][:4000]}')
        with contextlib.suppress(AssertionError):  # they may need a moment
            wait_for(lambda: not processes_of(demon.process.pid))
        if alive := processes_of(demon.process.pid):
            differences.append(f'processes live on: {alive}')
        return Report(demon.did, site.counts - calm, calm, differences)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rows', type=int, default=500)
    parser.add_argument(
        '--seconds', type=float, default=90, help='how long it goes on at most, before the weather clears'
    )
    parser.add_argument('--seed', type=int, default=1)
    args = parser.parse_args()
    youtube.make(youtube.Video().seconds)
    with tempfile.TemporaryDirectory() as folder:
        print(report := trial(pathlib.Path(folder), args.rows, args.seed, args.seconds))
    return 1 if report.differences else 0


if __name__ == '__main__':
    raise SystemExit(main())
