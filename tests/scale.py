"""What a run over a whole split costs its main process: python tests/bench.py --scale (Linux; four minutes, 2 GB of disk)."""

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

SCRIPT = pathlib.Path(download.__file__)
SPLIT = 'unbalanced_train'
LETTERS = string.ascii_letters + string.digits + '-_'


def make_list(path: pathlib.Path, count: int) -> None:
    """A list of made-up rows in the form of AudioSet's, with three lines of comment."""
    chance = random.Random(count)
    with open(path, 'w') as out:
        out.write('# a\n# made-up\n# list\n')
        for _ in range(count):
            start, tags = (
                chance.randrange(100),
                ','.join(chance.sample(youtube.TAGS, chance.randint(1, 3))),
            )
            out.write(f'{"".join(chance.choices(LETTERS, k=11))}, {start}.000, {start + 10}.000, "{tags}"\n')


def settle(root: pathlib.Path, count: int) -> None:
    """Write the journal of a run that has settled all rows but the last: six of seven done, the others gone."""
    labels = download.read_labels(root / 'csvs' / 'class_labels_indices.csv')
    journal = download.Journal(root / 'wavs' / 'journal.jsonl', labels)
    rows = download.read_lines(root / 'csvs' / f'{SPLIT}_segments.csv')
    for index, (_, line) in zip(range(count - 1), rows, strict=False):
        segment = download.parse_row(line, SPLIT, index)
        place = {'path': f'wavs/{segment.id}.m4a', 'ext': 'm4a', 'bytes': 163_840}
        record = {**place, 'title': 'A title of the usual length — more or less', 'format_id': '140', 'duration': 10.008}
        gone = download.Result(segment, 'gone', 'private', "Private video. Sign in if you've been granted access to this video")
        journal.settle(download.Result(segment, 'done', 'done', record=record) if index % 7 else gone)
    journal.file.close()


class Run:
    """download.py over a root, watched until it ends or has done what it is to be watched for."""

    def __init__(self, site: youtube.YouTube, root: pathlib.Path, *flags: str, clips: float = float('inf')) -> None:
        site.counts.clear()
        self.started, self.first, self.peak, self.cpu = time.monotonic(), 0.0, 0.0, 0.0  # s, s, MB, s
        said = root / 'said'
        with open(said, 'w') as out:
            command = [sys.executable, str(SCRIPT), '--root', str(root), *flags]
            process = subprocess.Popen(command, env={**os.environ, **site.env}, stdout=out, stderr=out)
            while process.poll() is None:
                self.look(process.pid)
                if not self.first and site.counts['player']:
                    self.first = time.monotonic() - self.started
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
        (root / 'wavs' / 'journal.jsonl').unlink()
        settle(root, count)
        resumed = Run(site, root)
        again, merge = Run(site, root), Run(site, root, '--merge')
        size = (root / 'wavs' / 'journal.jsonl').stat().st_size / 1e6
        peak = max(run.peak for run in (fresh, resumed, again, merge))
        seconds = [f'{s:.1f}' for s in (fresh.first, resumed.first, again.seconds, merge.seconds)]
        return [f'{count:,}', *seconds, f'{peak:.0f}', f'{size:.1f}']


def cpu_per_result() -> float:
    """CPU of the main process, ms: what 500 more rows cost."""
    used = []
    for count in (20, 520):
        with youtube.YouTube(latency=0.03) as site, tempfile.TemporaryDirectory() as folder:
            site.files['class_labels_indices.csv'] = youtube.LABELS
            site.files[f'{SPLIT}_segments.csv'] = youtube.segments_csv(youtube.rows(count))
            used.append(Run(site, pathlib.Path(folder)).cpu)
    return (used[1] - used[0]) / 500 * 1000


def main() -> int:
    youtube.make(youtube.Video().seconds)
    head = [
        'rows',
        'first request, s',
        'first request of a rerun, s',
        'rerun with nothing to do, s',
        '`--merge` alone, s',
        'peak MB',
        'journal MB',
    ]
    print(f'| {" | ".join(head)} |\n{"|---" * len(head)}|')
    for count in (20_000, 200_000, 2_041_789):
        print(f'| {" | ".join(measure(count))} |', flush=True)
    print(f'\nmain process: {cpu_per_result():.2f} ms of CPU per result')
    return 0
