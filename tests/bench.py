"""Compare ways of fetching clips, in one run, on the stand-in with a 30 ms round trip (Linux).

    python tests/bench.py                               # about ten minutes
    python tests/bench.py --scale                       # lists of up to two million rows instead
    python tests/bench.py --door                        # a proxy behind the door of download.py beside one without it
    python tests/bench.py --pace                        # simulated days, on a simulated clock, instead
    python tests/bench.py --ways floor download.py --rows 200 --processes 12

download.py and the floor use the ffmpeg that pip brought; the other two use the system's, where there is one, as their
users do. The stand-in runs on the same cores, so clips per second understate the faster ways; CPU seconds do not count
it.
"""

import argparse
import concurrent.futures
import ctypes
import http.client
import json
import os
import pathlib
import random
import resource
import shutil
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable

import imageio_ffmpeg

import youtube

HERE = pathlib.Path(__file__).parent
FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
Row = tuple[str, float, float]  # id, start, end (s)


def run(command: list[str], stdin: str = '') -> None:
    subprocess.run(command, input=stdin, text=True, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def download_py(rows: list[Row], root: pathlib.Path, processes: int, proxy: str = 'direct') -> None:
    """Ours, as a user starts it."""
    more = ['--num-processes', str(processes)] if processes else []
    if os.environ.get('COUNTING'):
        more += ['--ffmpeg', os.environ['COUNTING']]
    more += ['--proxies', proxy]
    run([sys.executable, str(HERE.parent / 'download.py'), '--root', str(root), '--splits', 'bench', *more])


def by_proxy(rows: list[Row], root: pathlib.Path, processes: int) -> None:
    """Ours, by a proxy that yt-dlp and ffmpeg use by themselves."""
    download_py(rows, root, processes, os.environ['https_proxy'])


def by_door(rows: list[Row], root: pathlib.Path, processes: int) -> None:
    """Ours, by the same proxy behind the door: it has a login in its address, for which the stand-in does not ask."""
    download_py(rows, root, processes, os.environ['https_proxy'].replace('//', '//me:too@'))


def plain_recipe(rows: list[Row], root: pathlib.Path, processes: int) -> None:
    """(a) See plain_recipe.py."""
    run([sys.executable, str(HERE / 'plain_recipe.py'), str(root)], stdin=json.dumps(rows))


def command_line(rows: list[Row], root: pathlib.Path, processes: int) -> None:
    """(b) The yt-dlp program with --download-sections, a process per row, two at a time per core."""

    def fetch(row: Row) -> None:
        ytid, start, end = row
        form = ['-x', '--audio-format', 'm4a', '-o', f'{root}/wavs/id_{ytid}.%(ext)s']
        quiet = ['--compat-options', 'no-certifi', '-q', '--no-warnings']
        run([sys.executable, '-m', 'yt_dlp', *quiet, *form, '--download-sections', f'*{start}-{end}', '--', ytid])

    with concurrent.futures.ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as pool:
        list(pool.map(fetch, rows))


def floor(rows: list[Row], root: pathlib.Path, processes: int) -> None:
    """(c) The least that anything of this shape does: a player POST on a kept-alive connection, one ffmpeg per row."""
    proxy = urllib.parse.urlsplit(os.environ['https_proxy'])
    trust = ssl.create_default_context(cafile=os.environ['SSL_CERT_FILE'])
    flags = ['-tls_verify', '1', '-ca_file', os.environ['SSL_CERT_FILE'], '-multiple_requests', '1']
    sizes = {'initial_request_size': 8192, 'short_seek_size': 32768, 'request_size': 162500}  # 10 s of 130 kbit/s
    flags += [word for name, size in sizes.items() for word in (f'-{name}', str(size))]
    context = {'client': {'clientName': 'VISIONOS', 'clientVersion': '1.02'}}

    def share(part: list[Row]) -> None:
        api = http.client.HTTPSConnection(proxy.hostname or '', proxy.port, context=trust)
        api.set_tunnel('www.youtube.com')
        for ytid, start, _ in part:
            asked = json.dumps({'videoId': ytid, 'context': context})
            api.request('POST', '/youtubei/v1/player', asked, {'Content-Type': 'application/json'})
            formats = json.loads(api.getresponse().read())['streamingData']['adaptiveFormats']
            url = next(made['url'] for made in formats if made['itag'] == 140)
            seek = ['-ss', str(start)] if start else []
            to = ['-c', 'copy', '-movflags', '+faststart', '-f', 'mp4', f'{root}/wavs/id_{ytid}.m4a']
            program = [os.environ.get('COUNTING', FFMPEG), '-y', '-loglevel', 'error']
            run([*program, *flags, *seek, '-t', '10', '-i', url, *to])

    count = processes or 4 * (os.cpu_count() or 1)
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        list(pool.map(share, [rows[n::count] for n in range(count)]))


WAYS: dict[str, Callable[[list[Row], pathlib.Path, int], None]] = {
    'download.py': download_py,
    'plain recipe': plain_recipe,
    'yt-dlp command line': command_line,
    'floor': floor,
    'by a proxy': by_proxy,
    'by the door': by_door,
}
DOOR = ['by a proxy', 'by the door']
SLOW = ('plain recipe', 'yt-dlp command line')


def adopt_orphans() -> None:
    """Let processes whose parent is gone (a fork server) be waited for by us, so that their CPU seconds count."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def cpu_of_children() -> float:
    """CPU seconds of all processes below this one; the stand-in is a thread of this one and does not count."""
    while True:
        try:
            os.wait()
        except ChildProcessError:
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            return used.ru_utime + used.ru_stime


def trial(way: str, count: int, processes: int, latency: float) -> dict[str, float]:
    """Fetch `count` rows one way, from nothing; per clip: CPU s, bytes, requests, and clips per second."""
    lines = youtube.rows(count, seed=random.randrange(1 << 30))
    rows = [(line[:11], *map(float, line.split(', ')[1:3])) for line in lines]
    with youtube.YouTube(latency=latency) as site, tempfile.TemporaryDirectory() as root:
        os.environ.update(site.env)
        for folder in ('csvs', 'wavs'):
            pathlib.Path(root, folder).mkdir()
        pathlib.Path(root, 'csvs', 'bench_segments.csv').write_bytes(youtube.segments_csv(lines))
        pathlib.Path(root, 'csvs', 'class_labels_indices.csv').write_bytes(youtube.LABELS)
        cpu, started = cpu_of_children(), time.perf_counter()
        WAYS[way](rows, pathlib.Path(root), processes)
        wall, cpu = time.perf_counter() - started, cpu_of_children() - cpu
        made = [path for path in pathlib.Path(root, 'wavs').glob('id_*') if path.stat().st_size > 20_000]
        assert len(made) == count, f'{way} made {len(made)} of {count} clips'
        asked = site.counts
        api = asked['player'] + asked['page'] + asked['js'] + asked['next']
        return {'media MB': asked['bytes'] / count / 1e6, 'API requests': api / count,
                'media connections': asked['media connections'] / count, 'media requests': asked['media'] / count,
                'clips/s': count / wall, 'CPU s': cpu / count}  # fmt: skip


def count_ffmpegs(way: str, count: int) -> float:
    """ffmpeg processes per clip, counted by a script that stands before it: in a run of its own, for it costs time."""
    with tempfile.TemporaryDirectory() as folder:
        log, shim = pathlib.Path(folder, 'log'), pathlib.Path(folder, 'ffmpeg')
        cases = f'case "$*" in *http*://*|*/wavs/*) echo >> {log};; esac'
        shim.write_text(f'#!/bin/sh\n{cases}\nexec {shutil.which("ffmpeg") if way in SLOW else FFMPEG} "$@"\n')
        shim.chmod(0o755)
        path = os.environ['PATH']
        os.environ.update(PATH=f'{folder}{os.pathsep}{path}', COUNTING=str(shim))
        try:
            trial(way, count, 0, 0)
        finally:
            os.environ['PATH'] = path
            del os.environ['COUNTING']
        return len(log.read_text()) / count


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(figures[key] for figures in rounds) for key in rounds[0]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rows', type=int, default=500, help='rows per round; a fifth of them for the slow ways')
    parser.add_argument('--rounds', type=int, default=3, help='take the ways in turn so often, and the medians')
    parser.add_argument('--ways', nargs='+', choices=WAYS, default=[way for way in WAYS if way not in DOOR])
    parser.add_argument(
        '--processes', type=int, default=0, help="of download.py and the floor; 0: download.py's default"
    )
    parser.add_argument('--latency', type=float, default=0.03, help='s per round trip')
    parser.add_argument(
        '--scale', action='store_true', help='what lists of up to two million rows cost the main process'
    )
    parser.add_argument('--pace', action='store_true', help='what the pace gets of simulated YouTubes; see simulate.py')
    parser.add_argument('--door', action='store_true', help='what a route costs that needs the door, instead')
    args = parser.parse_args()
    args.ways = DOOR if args.door else args.ways
    sys.path.insert(0, str(HERE.parent))
    if args.scale:
        import scale

        return scale.main()
    if args.pace:
        import simulate

        return simulate.main()
    adopt_orphans()
    youtube.make(youtube.Video().seconds)
    with tempfile.TemporaryDirectory() as folder:  # stands in where the system has no ffmpeg
        pathlib.Path(folder, 'ffmpeg').symlink_to(FFMPEG)
        os.environ['PATH'] += f'{os.pathsep}{folder}'
        rows = {way: args.rows // 5 if way in SLOW else args.rows for way in args.ways}
        rounds = [
            {way: trial(way, rows[way], args.processes, args.latency) for way in args.ways} for _ in range(args.rounds)
        ]
        middle = {way: medians([figures[way] for figures in rounds]) for way in args.ways}
        told = subprocess.run(['ffmpeg', '-version'], capture_output=True, text=True).stdout.split()[2]
        setting = f'{os.cpu_count()} cores, round trip {args.latency * 1000:.0f} ms, medians of {args.rounds} rounds'
        print(f'{setting}; the slow ways with ffmpeg {told}; per clip:\n')
        print('| way | rows | ' + ' | '.join([*middle[args.ways[0]], 'ffmpegs']) + ' |')
        print('|---' * (len(middle[args.ways[0]]) + 3) + '|')
        for way, figures in middle.items():
            shown = [f'{value:.3f}' if key == 'CPU s' else f'{value:.2f}' for key, value in figures.items()]
            print(
                f'| {way} | {rows[way]} | ' + ' | '.join([*shown, f'{count_ffmpegs(way, 10):.1f}']) + ' |', flush=True
            )
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
