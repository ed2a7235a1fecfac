"""What a run over a whole split costs its main process (Linux; ten minutes, 3 GB of disk): bench.py --scale."""

import os
import pathlib
import random
import string
import subprocess
import sys
import tempfile
import time

import download
import youtube
from conftest import hear_signals

SCRIPT = pathlib.Path(download.__file__)
SPLIT = 'unbalanced_train'
LEFT, FROM = 521, 20  # rows that a rerun finds to do; after how many of them its CPU begins to count
HEAD = ['rows', *(f'{what}, s' for what in ('first request', 'first request of a rerun', 'rerun with nothing to do'))]
HEAD += ['`--merge` alone, s', '`--dry-run`, s', '`--report`, s', 'CPU per result, ms', 'peak MB', 'ledger MB']
LETTERS = string.ascii_letters + string.digits + '-_'


def make_list(path: pathlib.Path, count: int) -> None:
    """A list of made-up rows in the form of AudioSet's, with three lines of comment."""
    chance = random.Random(count)
    with open(path, 'w') as out:
        out.write('# a\n# made-up\n# list\n')
        for _ in range(count):
            start, tags = (chance.randrange(100), ','.join(chance.sample(youtube.TAGS, chance.randint(1, 3))))
            out.write(f'{"".join(chance.choices(LETTERS, k=11))}, {start}.000, {start + 10}.000, "{tags}"\n')


def settle(root: pathlib.Path, count: int) -> None:
    """Leave the ledger of a run that has settled all but the last rows: six of seven done, the others gone."""
    settings = download.read_settings(['--root', str(root), '--splits', SPLIT])
    download.open_root(settings)
    settings.routes = {}
    columns = 'status, reason, message, settled, path, title, duration, bytes, sha256, format'
    private = "Private video. Sign in if you've been granted access to this video"
    title, chance = 'A title of the usual length — more or less', random.Random(count)

    def became(n: int) -> tuple:
        if n % 7:
            digest = f'{chance.getrandbits(256):064x}'
            return 'done', None, None, 1.7e9 + n, f'wavs/id_{n:011}.m4a', title, 10.008, 163_840, digest, '140', n
        return 'gone', 'private', private, 1.7e9 + n, *[None] * 6, n

    with download.Ledger(settings) as ledger:
        reader = download.open_reader(settings, ledger)
        reader.finish()
        marks = ', '.join('?' * 10)
        with ledger.changing():
            ledger.db.executemany(
                f'UPDATE clip SET ({columns}) = ({marks}) WHERE id = ?', map(became, range(1, count - LEFT + 1))
            )


class Run:
    """download.py over a root, watched until it ends or has done what it is to be watched for."""

    def __init__(self, site: youtube.YouTube, root: pathlib.Path, *flags: str, clips: float = float('inf')) -> None:
        site.counts.clear()
        self.started, self.first, self.peak, self.cpu = time.monotonic(), 0.0, 0.0, 0.0  # s, s, MB, s
        self.used: dict[int, float] = {}  # cpu at so many requests
        said = root / 'said'
        hear_signals()
        with open(said, 'w') as out:
            command = [sys.executable, str(SCRIPT), '--root', str(root), *flags]
            process = subprocess.Popen(command, env={**os.environ, **site.env}, stdout=out, stderr=out)
            while process.poll() is None:
                self.look(process.pid)
                if not self.first and site.counts['player']:
                    self.first = time.monotonic() - self.started
                for asked in (FROM, LEFT):
                    if site.counts['player'] >= asked:
                        self.used.setdefault(asked, self.cpu)
                if site.counts['player'] > clips and ' to do' in said.read_text():  # it knows its rows by now
                    process.terminate()
                    clips = float('inf')
                time.sleep(0.02)
        self.seconds = time.monotonic() - self.started
        assert process.returncode in (0, 130), said.read_text()

    def look(self, pid: int) -> None:
        try:
            status = pathlib.Path(f'/proc/{pid}/status').read_text()
            stat = pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return
        if 'VmHWM' in status:
            self.peak = int(status.partition('VmHWM:')[2].split()[0]) / 1000
            self.cpu = (int(stat[11]) + int(stat[12])) / os.sysconf('SC_CLK_TCK')


def measure(count: int) -> list[str]:
    """A line of the table."""
    with youtube.YouTube(latency=0.03) as site, tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        site.files['class_labels_indices.csv'] = youtube.LABELS
        for name in ('csvs', 'wavs'):
            (root / name).mkdir()
        make_list(root / 'csvs' / f'{SPLIT}_segments.csv', count)
        fresh = Run(site, root, clips=20)
        for path in (root / 'wavs').glob('*.sqlite3*'):
            path.unlink()
        settle(root, count)
        resumed, again = Run(site, root), Run(site, root)
        (root / 'audioset_metadata.json').unlink()
        runs = [fresh, resumed, again, *(Run(site, root, mode) for mode in ('--merge', '--dry-run', '--report'))]
        size = (root / 'wavs' / 'm4a.sqlite3').stat().st_size / 1e6
        seconds = [fresh.first, resumed.first, *(run.seconds for run in runs[2:])]
        cpu = (resumed.used[LEFT] - resumed.used[FROM]) / (LEFT - FROM) * 1000
        peak = max(run.peak for run in runs)
        return [f'{count:,}', *(f'{s:.1f}' for s in seconds), f'{cpu:.2f}', f'{peak:.0f}', f'{size:.1f}']


def main() -> int:
    youtube.make(youtube.Video().seconds)
    print(f'| {" | ".join(HEAD)} |\n{"|---" * len(HEAD)}|')
    for count in (20_000, 200_000, 2_041_789):
        print(f'| {" | ".join(measure(count))} |', flush=True)
    return 0
