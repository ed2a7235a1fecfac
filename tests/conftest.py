"""What the tests share: the stand-in, the program as a user runs it, and ears and eyes for the clips that it leaves."""

import argparse
import contextlib
import functools
import io
import json
import os
import pathlib
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from unittest import mock

import hypothesis
import imageio_ffmpeg
import numpy as np
import pytest

import youtube as stand_in

SCRIPT = pathlib.Path(__file__).parent.parent / 'download.py'
sys.path.insert(0, str(SCRIPT.parent))  # where chaos.py is run by itself
import download  # noqa: E402

hypothesis.settings.register_profile('wide', deadline=None, max_examples=200)  # once a week
hypothesis.settings.register_profile('same', deadline=None, max_examples=25, derandomize=True)
hypothesis.settings.load_profile('same')
RATE = 44100  # Hz


def thorough(*values: object) -> list:
    """Cases that prove by another way what others prove: `pytest -m thorough`, once a week."""
    cases = [value if isinstance(value, tuple) else (value,) for value in values]
    return [pytest.param(*case, marks=pytest.mark.thorough) for case in cases]


SECRET = 'hush-hush-7531'  # a cookie's value, a password
LOGIN = ['LOGIN_INFO', 'SAPISID', '__Secure-1PSAPISID', '__Secure-3PSAPISID']
# the same behaviour without the waiting, and with few processes to start, however many cores there are
QUICK = ['--retry-pause', '0.05', '--timeout', '3', '--pause', '0.2', '--longest-pause', '0.5', '--num-processes', '2']


def hear_signals() -> None:
    """Have the programs that we start end by a Ctrl-C though we ignore it, as with nohup or `&` in a script.

    They inherit what is ignored, but not what is handled; preexec_fn could hang, for the stand-in has threads.
    """
    for name in {'SIGINT', 'SIGTERM', 'SIGHUP'} & set(dir(signal)):
        if signal.getsignal(getattr(signal, name)) == signal.SIG_IGN:
            signal.signal(getattr(signal, name), lambda *_: None)


WORKERS_ENV: dict[str, str] = {}  # how the workers of all runs within this process find the stand-in


def run_here(argv: list[str], env: dict[str, str]) -> tuple[int, str, str]:
    """Status, stdout and stderr of download.py within this process: all such runs share a fork server that has loaded
    yt-dlp."""
    out, err = (io.TextIOWrapper(io.BytesIO(), 'utf-8', write_through=True) for _ in range(2))
    handlers = {ending: signal.getsignal(ending) for ending in download.ENDINGS}
    try:
        with mock.patch.dict(os.environ, env), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = download.main(argv)
    except SystemExit as end:  # of --help
        status = end.code or 0
    finally:
        for ending, handler in handlers.items():
            signal.signal(ending, handler)
    return status, *(stream.buffer.getvalue().decode() for stream in (out, err))


class Program:
    """download.py over one root, against the stand-in, as a process or, much quicker, within this one."""

    def __init__(self, root: pathlib.Path, site: stand_in.YouTube) -> None:
        self.root, self.site, self.script = root, site, SCRIPT
        self.env = {**os.environ, **site.env}
        self.given_env = dict(self.env)
        site.files.setdefault('class_labels_indices.csv', stand_in.LABELS)

    def offer(self, *rows: str, split: str = 'eval') -> None:
        """Put a list of segments into the bucket."""
        self.site.files[f'{split}_segments.csv'] = stand_in.segments_csv(list(rows))

    def edit(self, line: str, other: str) -> None:
        """Run a copy of the script from now on, in which a line is another one."""
        source = self.script.read_text(encoding='utf-8')
        assert source.count(line) == 1, line
        self.script = self.root.parent / 'download.py'
        self.script.write_text(source.replace(line, other), encoding='utf-8')

    def command(self, *flags: str) -> list[str]:
        return [sys.executable, str(self.script), '--root', str(self.root), '--splits', 'eval', *QUICK, *flags]

    def start(self, *flags: str, **popen: object) -> subprocess.Popen:
        hear_signals()
        pipes = {'stdin': subprocess.DEVNULL, 'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
        return subprocess.Popen(self.command(*flags), env=self.env, start_new_session=True, **{**pipes, **popen})

    def run(self, *flags: str, status: int | None = 0) -> subprocess.CompletedProcess:
        command = self.command(*flags)
        plain = (self.script, self.env, self.site.env) == (SCRIPT, self.given_env, WORKERS_ENV)
        if plain and 'ray' not in flags:
            code, out, err = run_here(command[2:], self.env)
        else:
            process = self.start(*flags)
            out, err = process.communicate(timeout=120)
            code = process.returncode
        assert status is None or code == status, f'exit {code}\n{out}\n{err}'
        assert 'Traceback' not in out + err, out + err
        return subprocess.CompletedProcess(command, code, out, err)

    def run_in_shell(self, line: str, *flags: str) -> subprocess.CompletedProcess:
        """Run it as "$@" of a line of sh."""
        command = ['sh', '-c', line, 'sh', *self.command(*flags)]
        made = subprocess.run(
            command, env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
        )
        assert 'Traceback' not in made.stdout + made.stderr, made.stdout + made.stderr
        return made

    @property
    def metadata(self) -> dict[str, dict]:
        return json.loads((self.root / 'audioset_metadata.json').read_text(encoding='utf-8'))

    def ask(self, query: str, ledger: str = 'm4a') -> list[tuple]:
        """What the ledger answers to a query."""
        path = self.root / 'wavs' / f'{ledger}.sqlite3'
        with contextlib.closing(sqlite3.connect(f'{path.as_uri()}?mode=ro', uri=True)) as db:
            return db.execute(query).fetchall()

    @property
    def settled(self) -> list[tuple]:
        """Name, status, reason and message of what is settled, in all ledgers of the root."""
        query = "SELECT name, status, ifnull(reason, ''), message FROM clip WHERE status IS NOT NULL ORDER BY id"
        paths = sorted((self.root / 'wavs').glob('**/*.sqlite3'))
        return [row for path in paths for row in self.ask(query, path.relative_to(self.root / 'wavs').as_posix()[:-8])]

    @property
    def reasons(self) -> dict[str, tuple[str, str]]:
        """Id -> status and reason."""
        return {name[3:]: (status, reason) for name, status, reason, _ in self.settled}

    def lose_ledgers(self) -> None:
        for path in (self.root / 'wavs').glob('**/*.sqlite3*'):
            path.unlink()

    def clips(self) -> list[pathlib.Path]:
        return sorted((self.root / 'wavs').glob('id_*'))

    def clip(self, ytid: str = '', ext: str = '*') -> pathlib.Path:
        (path,) = (self.root / 'wavs').glob(f'id_{ytid or "*"}.{ext}')
        return path

    def leftovers(self) -> list[pathlib.Path]:
        return list((self.root / 'temps').iterdir())


@contextlib.contextmanager
def opened(
    csvs: pathlib.Path, *splits: str, ledger: pathlib.Path | None = None, **settings: object
) -> Iterator[download.Job]:
    """What a run would do over lists in a folder, by a ledger that is there or by one of its own."""
    with tempfile.TemporaryDirectory() as folder:
        wavs, path = pathlib.Path(folder), ledger or pathlib.Path(folder, 'm4a.sqlite3')
        choice = settings.pop('choice', None)
        plain = {'csvs': csvs, 'wavs': wavs, 'ledger': path, 'ext': 'm4a', 'limit': None, 'shard': '0/1'}
        plain |= dict.fromkeys(['sample_rate', 'channels', 'pad', 'exact_frames', 'remake', 'labels', 'exclude'])
        plain |= {'name': 'id_{ytid}', 'per_label': None, 'splits': list(splits), 'root': wavs}
        plain |= {'length': None, 'columns': {}, 'addresses': {}, 'routes': {}}
        made = argparse.Namespace(**{**plain, **settings})
        places = {split: download.list_path(made, split) for split in splits or ['eval']}
        lists = {split: (place, download.recognise(place, made.columns)) for split, place in places.items()}
        with download.Ledger(made) as remembered:
            yield download.Job(download.Reader(remembered, lists, {}, {}), made, choice)


def settle(job: download.Job, *segments: download.Segment, reason: str = '', **record: object) -> None:
    """Write down that these are done, or gone for a reason."""
    for segment in segments:
        plain = {'path': f'wavs/{segment.id}.m4a', 'title': 'a title', 'duration': 10.0, 'format_id': '140'}
        told = {} if reason else {**plain, 'bytes': 1, 'sha256': '', **record}
        result = download.Result(segment, 'gone' if reason else 'done', reason or 'done', reason, told)
        job.reader.ledger.settle(result)


def give_cookies(program: Program, names: list[str]) -> str:
    program.root.mkdir(exist_ok=True)
    lines = [f'.youtube.com\tTRUE\t/\tTRUE\t2147483647\t{name}\t{SECRET}' for name in names]
    text = '\n'.join(['# Netscape HTTP Cookie File', *lines, ''])
    (program.root / 'cookies.txt').write_text(text)
    return text


def wait_for(condition: object, seconds: float = 60) -> None:
    """Poll until `condition()` holds; fail when it never does."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, 'it never happened'
        time.sleep(0.01)


def processes_of(session: int) -> dict[int, int]:
    """The processes that live in a session and their parents (Linux)."""
    found = {}
    for stat in pathlib.Path('/proc').glob('[0-9]*/stat'):
        try:
            fields = stat.read_text().rpartition(')')[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != 'Z':
            found[int(stat.parent.name)] = int(fields[1])
    return found


def workers_of(program: int, busy: bool = False) -> list[int]:
    """The processes that a program's fork server made; the busy ones are those with an ffmpeg (Linux)."""
    parents = processes_of(program)
    made = [pid for pid, parent in parents.items() if parents.get(parent) == program]
    return [pid for pid in made if pid in parents.values()] if busy else made


@contextlib.contextmanager
def mounted(*what: object) -> Iterator[None]:
    """Have something mounted on the folder that is named last while the block lasts (Linux, root)."""
    subprocess.run(['mount', *map(str, what)], check=True)
    try:
        yield
    finally:
        subprocess.run(['umount', '-l', str(what[-1])], check=True)


@contextlib.contextmanager
def small_disk(folder: pathlib.Path, megabytes: float) -> Iterator[None]:
    """Have a folder on a file system of its own while the block lasts (Linux, root)."""
    folder.mkdir(exist_ok=True)
    with mounted('-t', 'tmpfs', '-o', f'size={int(megabytes * 1000)}k', 'tmpfs', folder):
        yield


@functools.cache
def may_mount() -> bool:
    """Whether this machine allows it."""
    if sys.platform != 'linux':
        return False
    with tempfile.TemporaryDirectory() as folder:
        mounted = subprocess.run(['mount', '-t', 'tmpfs', 'tmpfs', folder], capture_output=True).returncode == 0
        return mounted and subprocess.run(['umount', '-l', folder]).returncode == 0


def is_open(port: int) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex(('127.0.0.1', port)) == 0


@contextlib.contextmanager
def proxy_before(door: stand_in.Door, kind: str, login: str = '', port: int = 0) -> Iterator[str]:
    """The address of a real proxy server (pproxy) that leads to a door of the stand-in."""
    if not port:
        with socket.create_server(('127.0.0.1', 0)) as free:
            port = free.getsockname()[1]
    listens = f'{kind.removesuffix("h")}://127.0.0.1:{port}' + (f'#{login}' if login else '')
    command = [sys.executable, '-m', 'pproxy', '-l', listens, '-r', door.url]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: is_open(port))
        yield f'{kind}://{login}@127.0.0.1:{port}'.replace('//@', '//')
    finally:
        process.kill()
        process.wait()


def kill_session(process: subprocess.Popen) -> None:
    """kill -9 of everything that the program started."""
    while alive := processes_of(process.pid):
        for pid in alive:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.poll()
    process.communicate()


def listen(path: pathlib.Path) -> np.ndarray:
    """A clip as mono samples at RATE, as a player would sound it."""
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), '-v', 'error', '-i', str(path), '-map', '0:a']
    mono = ['-ac', '1', '-ar', str(RATE), '-f', 'f32le', '-']
    return np.frombuffer(subprocess.run([*ffmpeg, *mono], capture_output=True, check=True).stdout, np.float32)


def sound(start: float, seconds: float) -> np.ndarray:
    """What the stand-in's videos sound like from `start` (s), without their noise."""
    t = start + np.arange(round(seconds * RATE)) / RATE
    low, high = 400 + 40 * (np.floor(t) % 25), 2000 + 60 * np.floor(t / 25)
    return 0.2 * np.sin(2 * np.pi * low * t) + 0.2 * np.sin(2 * np.pi * high * t)


def offset(path: pathlib.Path, start: float, seconds: float, margin: float = 0.3) -> float:
    """By how many s a clip begins later than `start` in its video; fails if it is not that part of the video at all."""
    heard, first = listen(path), start - margin
    known = sound(first, seconds + 2 * margin)
    size = 1 << len(known).bit_length()  # enough for the places at which all that is heard is within what is known
    match = np.fft.irfft(np.fft.rfft(known, size) * np.conj(np.fft.rfft(heard, size)), size)
    best = int(np.argmax(match[: max(1, len(known) - len(heard) + 1)]))
    part = known[best : best + len(heard)]
    likeness = match[best] / (np.linalg.norm(part) * np.linalg.norm(heard))
    assert likeness > 0.8, (
        f'{path.name} does not sound like {start} to {start + seconds} s of its video ({likeness:.2f})'
    )
    return first + best / RATE - start


def look(path: pathlib.Path, *options: str) -> list[int]:
    """The numbers that the frames of a clip spell, as a player would show them."""
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), '-v', 'error', *options, '-i', str(path), '-map', '0:v']
    gray = ['-vf', 'scale=16:9:flags=neighbor', '-f', 'rawvideo', '-pix_fmt', 'gray', '-']
    raw = subprocess.run([*ffmpeg, *gray], capture_output=True, check=True).stdout
    pictures = np.frombuffer(raw, np.uint8).reshape(-1, 9, 16)
    return [int(''.join('1' if column > 127 else '0' for column in picture.mean(0)), 2) for picture in pictures]


@pytest.fixture(scope='session', autouse=True)
def port() -> Iterator[socket.socket]:
    """Where the stand-in listens for all tests of this process, and the fork server of their programs looks for it."""
    stand_in.make(stand_in.Video().seconds)
    with socket.create_server(('127.0.0.1', 0), backlog=256) as listens:
        with stand_in.YouTube(listens=listens) as site, mock.patch.dict(os.environ, site.env):
            download.PRELOAD.append('download')
            download.start_method()
            WORKERS_ENV.update(site.env)
        yield listens


@pytest.fixture
def site(port: socket.socket) -> Iterator[stand_in.YouTube]:
    with stand_in.YouTube(listens=port) as running:
        yield running


@pytest.fixture
def program(tmp_path: pathlib.Path, site: stand_in.YouTube) -> Program:
    return Program(tmp_path / 'audioset', site)
