"""Download AudioSet: fetch only the wanted seconds of each YouTube video, many at a time, and remember what became of them.

    python download.py                          # every row that is not settled yet; run it again to resume
    python download.py --limit 20               # try it out
    python download.py --splits eval --ext wav --sample-rate 16000 --channels 1
    python download.py --help                   # every setting below is also a flag

It leaves the clips in `wavs/` and their url, path, title, tags and labels in `audioset_metadata.json`:

    csvs/     lists of segments and labels, fetched when they are not there
    wavs/     id_<YTID>.<ext>, always whole, and journal.jsonl, one line per settled row
    temps/    scratch; safe to delete when nothing runs
"""
# /// script
# requires-python = ">=3.10"
# dependencies = ["yt-dlp[default,deno]", "tqdm", "imageio-ffmpeg"]
# ///

from __future__ import annotations

import argparse
import contextlib
import csv
import errno
import gc
import heapq
import itertools
import json
import math
import multiprocessing
import os
import queue
import random
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

# ------------------------------------------------------------------------------------------------------------ settings
# what to fetch
splits: list[str] = ['unbalanced_train']  # lists to fetch: eval, balanced_train, unbalanced_train, any csvs/<name>_segments.csv
limit: int | None = None  # only the first so many rows; None: all
again: list[str] = []  # reasons of gone rows to ask for once more, e.g. age (now with cookies) or country (now elsewhere)
# what to make of it
ext: str = 'm4a'  # audio: m4a (the source's own bits), wav, flac, opus, mp3; video: mp4
sample_rate: int | None = None  # Hz; None: the source's
channels: int | None = None  # 1: mono, 2: stereo; None: the source's
max_height: int = 360  # pixels; the tallest video to take for mp4
exact_frames: bool = False  # mp4: cut at the very frame by re-encoding (slow), not at the keyframe before it and an edit list
# how
num_processes: int = 4 * (os.cpu_count() or 1)  # clips in flight; they mostly wait for the network
retries: int = 3  # how often to try a row again in this run when something passing went wrong
retry_pause: float = 4  # s before the first retry, doubled each time
timeout: float = 15  # s without a byte until a connection counts as dead
clip_timeout: float = 120  # s until ffmpeg is ended, whatever it does
cookie_path: str = 'cookies.txt'  # your cookies in Netscape format, used if the file exists
client: str = ''  # YouTube client for the single cheap request; empty: what yt-dlp uses without JavaScript
ffmpeg: str = ''  # another ffmpeg to use; empty: the one that comes with imageio-ffmpeg
ydl_opts: dict = {}  # more options for yt-dlp, on the command line as JSON
root: str = ''  # folder with csvs, wavs, temps, cookies.txt and the metadata; empty: where this script is
# instead of a plain run
verify: bool = False  # check every clip that the journal names and fetch again what is missing or damaged
merge: bool = False  # only make audioset_metadata.json from the journal

# --------------------------------------------------------------------------------------------------------------- types
BUCKET = 'https://storage.googleapis.com/us_audioset/youtube_corpus/v1/csv/'
AUDIO = {  # ext -> how ffmpeg makes it
    'm4a': ['-c:a', 'aac', '-b:a', '128k', '-movflags', '+faststart', '-f', 'mp4'],
    'wav': ['-c:a', 'pcm_s16le', '-f', 'wav'],
    'flac': ['-c:a', 'flac', '-sample_fmt', 's16', '-f', 'flac'],
    'opus': ['-c:a', 'libopus', '-b:a', '96k', '-f', 'opus'],
    'mp3': ['-c:a', 'libmp3lame', '-q:a', '2', '-f', 'mp3'],
}
AAC_RATES = {7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000}
RATES = {  # Hz that an encoder takes; the others take any
    'm4a': AAC_RATES,
    'mp4': AAC_RATES,
    'opus': {8000, 12000, 16000, 24000, 48000},
    'mp3': {8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000},
}
DONE, GONE, FAILED, THROTTLED, STOP = 'done', 'gone', 'failed', 'throttled', 'stop'
VERDICTS = [  # reason, verdict, believed even from the cheap request, words of YouTube or yt-dlp; the first match counts
    ('cookies', STOP, True, r'cookies are no longer valid|cookieloaderror|does not look like a netscape'),
    ('captcha', THROTTLED, False, r'captcha'),
    ('bot check', THROTTLED, False, r'not a bot'),
    ('rate limit', THROTTLED, False, r'rate-limited|try again later|http error 429'),
    ('blocked', THROTTLED, False, r'likely being blocked|http error 403'),
    ('age', GONE, False, r'confirm your age|age-restricted'),
    ('members', GONE, True, r'members-only|join this channel'),
    ('private', GONE, True, r'private video'),
    ('terminated', GONE, True, r'account .*terminated'),
    ('copyright', GONE, True, r'copyright'),
    ('country', GONE, True, r'in your country'),
    ('removed', GONE, True, r'has been removed'),
    ('live', FAILED, True, r'live event|premieres in|not currently live'),
    ('no format', FAILED, False, r'requested format|no video formats'),
    ('network', FAILED, True, r'timed out|connection|reset|resolve|unreachable|refused|eof|http error 5|ssl|proxy|broken pipe'),
    ('unavailable', GONE, False, r'video unavailable|not available|unavailable'),
    ('other', FAILED, False, r''),
]
PERSISTENT = {'live', 'no format'}  # failures that a second try in the same run would only meet again
REMEDY = 'wait an hour, or give it cookies.txt (see README), or another address'


class Oops(Exception):
    """What the user can mend; its text is the one line that says what, where and how."""


class Segment(NamedTuple):
    """A row to fetch."""

    ytid: str
    start: float  # s
    end: float  # s
    tags: tuple[str, ...]
    split: str


class Task(NamedTuple):
    """A segment on its way to a worker."""

    segment: Segment
    tries: int = 0
    cheap: bool = True  # ask with the single cheap request first


class Result(NamedTuple):
    """What became of a task. `record` holds the fields that only the fetching could tell."""

    task: Task
    verdict: str
    reason: str
    message: str = ''
    record: dict[str, Any] = {}
    cheap_failed: bool = False  # the full extraction brought what the cheap request did not


class Home(NamedTuple):
    """Where everything is."""

    root: Path
    csvs: Path
    wavs: Path
    temps: Path
    cookies: Path
    journal: Path
    metadata: Path


Settings = argparse.Namespace  # the globals above and the flags over them, as one value that travels to the workers

# ---------------------------------------------------------------------------------------------------------------- read


def clip_id(ytid: str) -> str:
    return f'id_{ytid}'


def parse_row(line: str, split: str) -> Segment:
    """One line `YTID, start, end, "tag,tag"`, times in s; ValueError says what is wrong with it."""
    fields = next(csv.reader([line], skipinitialspace=True))
    if len(fields) < 4:
        raise ValueError(f'{len(fields)} of 4 fields')
    if not re.fullmatch(r'[A-Za-z0-9_-]{11}', fields[0]):
        raise ValueError(f'{fields[0]!r} is not a video id')
    start, end = float(fields[1]), float(fields[2])
    if not (0 <= start < end < math.inf):
        raise ValueError(f'no clip from {start} to {end} s')
    tags = tuple(tag.strip() for field in fields[3:] for tag in field.split(',') if tag.strip())
    return Segment(fields[0], start, end, tags, split)


def read_rows(path: Path, split: str, complain: Callable[[str], object]) -> Iterator[Segment]:
    """The segments of one list, a line at a time (a stray quote then costs its own row only)."""
    with open(path, encoding='utf-8-sig', errors='replace', newline=None) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith('#'):
                continue
            try:
                yield parse_row(line, split)
            except (ValueError, csv.Error) as error:
                complain(f'{path.name}, line {number}: skipped, {error}')


def read_segments(settings: Settings, home: Home, complain: Callable[[str], object]) -> Iterator[Segment]:
    """The rows of this run: all splits in order, the first of each id, up to `limit`."""

    def first_of_each() -> Iterator[Segment]:
        seen: dict[str, str] = {}
        for split in settings.splits:
            for segment in read_rows(home.csvs / f'{split}_segments.csv', split, complain):
                if segment.ytid in seen:
                    complain(f'{split}: skipped, {segment.ytid} is already a row of {seen[segment.ytid]}')
                else:
                    seen[segment.ytid] = split
                    yield segment

    return itertools.islice(first_of_each(), settings.limit)


def read_labels(path: Path) -> dict[str, str]:
    """Tag (MID) -> label (display name), as published."""
    with open(path, encoding='utf-8-sig', newline='') as lines:
        rows = list(csv.DictReader(lines))
    if not rows or not {'mid', 'display_name'} <= rows[0].keys():
        raise Oops(f'{path}: not a list of labels; its header must name mid and display_name (delete it to fetch it anew)')
    return {row['mid']: row['display_name'] for row in rows}


def provide(path: Path) -> None:
    """Fetch a list from AudioSet's bucket unless the user, or an earlier run, put it there."""
    if path.exists():
        return
    try:
        context = ssl.create_default_context(cafile=trusted_certificates())
        with urllib.request.urlopen(BUCKET + path.name, timeout=60, context=context) as answer:
            content = answer.read()
            if len(content) < int(answer.headers.get('Content-Length') or 0):
                raise OSError('the answer was cut short')
    except OSError as error:  # every error of urllib is one
        have = ', '.join(sorted(p.name.removesuffix('_segments.csv') for p in path.parent.glob('*_segments.csv'))) or 'none'
        raise Oops(f'{path} is not there and cannot be fetched ({error}); splits there: {have}') from None
    replace_file(path, [content.decode()])
    print(f'fetched {path.name}')


def replace_file(path: Path, parts: Iterable[str]) -> None:
    """Write a file under another name and rename it, so that it is there whole or not at all."""
    made = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        with open(made, 'w', encoding='utf-8', newline='') as out:
            out.writelines(parts)
        os.replace(made, path)
    finally:
        made.unlink(missing_ok=True)


def trusted_certificates() -> str:
    """The CA file that yt-dlp, ffmpeg and we trust alike: the user's, else certifi's."""
    import certifi

    return os.environ.get('SSL_CERT_FILE') or certifi.where()


# --------------------------------------------------------------------------------------------------------------- fetch


def judge(words: str) -> tuple[str, str, bool]:
    """Reason, verdict and whether the cheap request may be believed: the one place that interprets refusals."""
    plain = words.lower().replace('’', "'")
    return next((reason, verdict, sure) for reason, verdict, sure, pattern in VERDICTS if re.search(pattern, plain))


class Refused(Exception):
    """YouTube or ffmpeg said no; carries the reason, the verdict and their own words."""

    def __init__(self, words: str, reason: str = '', verdict: str = '') -> None:
        super().__init__(words)
        self.words = ' '.join(words.split())[:300]
        self.reason, self.verdict, self.sure = (reason, verdict, True) if reason else judge(words)


class Listener:
    """yt-dlp's logger. A network error or a 429 is told in a warning only, so warnings are kept for each question."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def debug(self, message: str) -> None:
        pass

    def warning(self, message: str) -> None:
        self.warnings.append(message)

    def error(self, message: str) -> None:
        pass


def is_video(settings: Settings) -> bool:
    return settings.ext == 'mp4'


def format_selector(settings: Settings) -> str:
    """In yt-dlp's language. H.264 before AV1, which few tools for training can decode."""
    if not is_video(settings):
        return 'bestaudio[ext=m4a]/bestaudio/best'
    cap = f'[height<={settings.max_height}]'
    sound = '+(ba[ext=m4a]/ba)'
    return f'bv[vcodec^=avc1]{cap}{sound}/bv[ext=mp4]{cap}{sound}/b[ext=mp4]{cap}/bv{cap}{sound}/b{cap}'


def output_args(settings: Settings, task: Task, codec: str) -> list[str]:
    """What ffmpeg gets for its output: copy what may stay as it is (`codec` is the source's), else encode."""
    keep = codec.startswith('mp4a') and not settings.sample_rate and not settings.channels
    shape = ['-t', str(task.segment.end - task.segment.start)]  # to the sample
    shape += ['-ar', str(settings.sample_rate)] if settings.sample_rate else []
    shape += ['-ac', str(settings.channels)] if settings.channels else []
    shape += ['-frame_size', '4096'] if settings.ext == 'flac' and task.tries else []  # it cannot end with under 16 samples
    sound = ['-c:a', 'copy', *AUDIO['m4a'][4:]] if keep else [*AUDIO['m4a'], *shape]
    if is_video(settings):
        return [*(['-c:v', 'libx264', '-preset', 'veryfast', '-crf', '20'] if settings.exact_frames else []), *sound]
    return ['-vn', *(sound if settings.ext == 'm4a' else [*AUDIO[settings.ext], *shape])]


def input_args(settings: Settings, segment: Segment, source: dict[str, Any], http_flags: set[str]) -> list[str]:
    """What ffmpeg gets before an input: the seconds to read, in requests that a clip fits into, and whom to trust."""
    length = segment.end - segment.start
    size = int((source.get('tbr') or 1000) * 125 * (length + 12))  # bytes; fragments are about 10 s and start before `start`
    wanted = {'request_size': size, 'short_seek_size': 1 << 18}
    return [
        *('-loglevel', 'error', '-rw_timeout', str(int(settings.timeout * 1e6)), '-tls_verify', '1'),
        *('-ca_file', trusted_certificates()),
        *(arg for flag, value in wanted.items() if flag in http_flags for arg in (f'-{flag}', str(value))),
        *(['-ss', str(segment.start)] if segment.start else []),  # seeking to 0 costs Opus its first packet
        *('-t', str(length)),
    ]


def narrow(response: dict[str, Any], mimes: tuple[str, ...]) -> dict[str, Any]:
    """Drop what no selector of ours would take from YouTube's answer: yt-dlp spends most of its time on it."""
    streams = response.get('streamingData') or {}
    offered = streams.get('adaptiveFormats') or []
    kept = [[made for made in offered if made.get('mimeType', '').startswith(mime)] for mime in mimes]
    if all(kept):
        streams['adaptiveFormats'] = sum(kept, [])
    for unused in ('captions', 'storyboards'):
        response.pop(unused, None)
    return response


def cheap_extractor(settings: Settings) -> Any:
    """yt-dlp's YouTube extractor, narrowed. Where a later yt-dlp no longer calls the method, it is only slower."""
    from yt_dlp.extractor.youtube import YoutubeIE as Stock

    mimes = ('video/mp4; codecs="avc1', 'audio/mp4') if is_video(settings) else ('audio/mp4',)

    class YoutubeIE(Stock):  # type: ignore[misc]  # the name is the key under which yt-dlp finds its arguments
        def _extract_player_response(self, *args: Any, **kwargs: Any) -> Any:
            response = super()._extract_player_response(*args, **kwargs)
            return narrow(response, mimes) if response else response

    return YoutubeIE()


def open_ydl(settings: Settings, listener: Listener, cheap: bool, cookies: Path | None) -> Any:
    """A YoutubeDL to keep: the cheap one makes one request per video, the full one does all that yt-dlp can do."""
    import yt_dlp

    options: dict[str, Any] = {
        **{'quiet': True, 'noprogress': True, 'color': 'never', 'logger': listener, 'nopart': True, 'overwrites': True},
        **{'format': format_selector(settings), 'ffmpeg_location': settings.ffmpeg, 'extractor_retries': 0},
        'socket_timeout': settings.timeout,
        'compat_opts': {'no-certifi'} if os.environ.get('SSL_CERT_FILE') else set(),
        'cookiefile': str(cookies) if cookies else None,
        **settings.ydl_opts,
    }
    if not cheap:
        return yt_dlp.YoutubeDL(options)
    arguments = {
        'player_skip': ['webpage', 'configs', 'js', 'initial_data'],  # without initial_data a `next` call replaces the page
        'skip': ['hls', 'dash', 'translated_subs'],
        **({'player_client': [settings.client]} if settings.client else {}),
    }
    theirs = options.get('extractor_args') or {}
    options['extractor_args'] = {**theirs, 'youtube': {**arguments, **theirs.get('youtube', {})}}
    ydl = yt_dlp.YoutubeDL({**options, 'js_runtimes': {}}, auto_init=False)
    ydl.add_info_extractor(cheap_extractor(settings))
    return ydl


def watched_popen(seconds: float, log: Path) -> type:
    """yt-dlp's process class, for its ffmpeg: ended after so many seconds (yt-dlp waits for ever), stderr kept in `log`."""
    from yt_dlp.utils import Popen

    class WatchedPopen(Popen):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            with open(log, 'wb') as words:
                super().__init__(*args, stderr=words, **kwargs)

        def wait(self, timeout: float | None = None) -> int:
            timer = threading.Timer(seconds, self.kill)  # a wait with a timeout would poll
            timer.start()
            try:
                return super().wait(timeout)
            finally:
                timer.cancel()

    return WatchedPopen


def measure(path: Path) -> float:
    """Duration in s; 0 for what is missing, empty or damaged."""
    import mutagen

    try:
        made = mutagen.File(path)
    except (mutagen.MutagenError, OSError):
        return 0.0
    return float(made.info.length) if made is not None and made.info else 0.0  # a file without tags is falsy


def tolerance(settings: Settings) -> float:
    """How far (s) a clip may be from its nominal length: containers round, mp4 keeps frames behind an edit list."""
    return 0.2 if is_video(settings) else 0.1


def source_duration(info: dict[str, Any], sources: list[dict[str, Any]]) -> tuple[float, float]:
    """Length of the video in s, and how far that may be off: YouTube rounds to seconds, but dates its formats in ms."""
    exact = [s['filesize_approx'] / s['tbr'] / 125 for s in sources if s.get('filesize_approx') and s.get('tbr')]
    return (min(exact), 0.0) if exact else (info.get('duration') or math.inf, 1.0)


def publish(made: Path, path: Path) -> None:
    """Move a finished clip to its place, whole at every moment, from another file system as well."""
    try:
        os.replace(made, path)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        beside = path.parent / '.parts' / path.name
        beside.parent.mkdir(exist_ok=True)
        shutil.copyfile(made, beside)
        os.replace(beside, path)


class Worker:
    """What a process keeps from clip to clip: its settings, its scratch folder and its YoutubeDLs."""

    def __init__(self, settings: Settings, home: Home, scratch: Path, http_flags: set[str]) -> None:
        from yt_dlp.downloader import external

        self.settings, self.home, self.http_flags = settings, home, http_flags
        self.scratch = Path(tempfile.mkdtemp(dir=scratch))
        self.log = self.scratch / 'ffmpeg.log'
        self.listener = Listener()
        self.ydls: dict[bool, Any] = {}
        self.cookies = self.copy_cookies()
        self.may_be_cheap = not self.cookies and not {'cookiefile', 'cookiesfrombrowser'} & settings.ydl_opts.keys()
        external.Popen = watched_popen(settings.clip_timeout, self.log)

    def copy_cookies(self) -> Path | None:
        """A copy of one's own, for yt-dlp writes cookies back; mkdtemp made the folder for the owner's eyes only."""
        if not self.home.cookies.exists():
            return None
        copy = self.scratch / 'cookies.txt'
        with open(os.open(copy, os.O_WRONLY | os.O_CREAT, 0o600), 'wb') as out:
            out.write(self.home.cookies.read_bytes())
        return copy

    def ydl(self, cheap: bool) -> Any:
        if cheap not in self.ydls:
            self.ydls[cheap] = open_ydl(self.settings, self.listener, cheap, self.cookies)
        return self.ydls[cheap]

    def ask(self, ytid: str, cheap: bool) -> dict[str, Any]:
        """YouTube's description of a video, formats chosen; Refused if it has none for us."""
        from yt_dlp.utils import YoutubeDLError

        self.listener.warnings.clear()
        try:
            info = self.ydl(cheap).extract_info(f'https://www.youtube.com/watch?v={ytid}', download=False)
        except YoutubeDLError as error:
            cause = (getattr(error, 'exc_info', None) or [None, error])[1]
            words = getattr(cause, 'orig_msg', None) or str(cause)
            if 'player response' in words.lower():  # yt-dlp has told the cause in a warning
                words = ' '.join(self.listener.warnings) or words
            raise Refused(words) from None
        finally:
            self.heed_cookies()
        if info.get('live_status') in ('is_live', 'is_upcoming', 'post_live'):
            raise Refused(f'live event, {info["live_status"]}')
        return info

    def heed_cookies(self) -> None:
        for warning in self.listener.warnings:
            if judge(warning)[0] == 'cookies':
                raise Refused(warning) from None

    def ask_twice(self, task: Task) -> tuple[dict[str, Any], bool]:
        """Ask cheaply, and in full where the answer to that cannot be believed; True if only the full way brought it."""
        if not (task.cheap and self.may_be_cheap):
            return self.ask(task.segment.ytid, cheap=False), False
        try:
            return self.ask(task.segment.ytid, cheap=True), False
        except Refused as refused:
            if refused.sure:
                raise
        return self.ask(task.segment.ytid, cheap=False), True

    def cut(self, info: dict[str, Any], task: Task, made: Path) -> float:
        """One ffmpeg, started by yt-dlp, makes the final file of the wanted seconds; returns its duration (s)."""
        from yt_dlp.downloader.external import FFmpegFD
        from yt_dlp.utils import DownloadError

        segment, sources = task.segment, info.get('requested_formats') or [info]
        length, slack = source_duration(info, sources)
        if segment.start >= length + slack:
            raise Refused(f'the video ends at {length:.3f} s, before {segment.start} s', 'too short', GONE)
        ydl = self.ydl(cheap=self.may_be_cheap)
        flags = self.http_flags if task.tries == 0 else set()  # a retry does without what only new ffmpegs have
        inputs = {f'ffmpeg_i{n}': input_args(self.settings, segment, s, flags) for n, s in enumerate(sources, 1)}
        outputs = output_args(self.settings, task, sources[-1].get('acodec') or '')
        ydl.params['external_downloader_args'] = {**inputs, 'ffmpeg_o': outputs}
        started = time.monotonic()
        try:
            FFmpegFD(ydl, ydl.params).download(str(made), {**info, 'url': sources[0]['url']})
        except DownloadError as error:
            if time.monotonic() - started > self.settings.clip_timeout:
                raise Refused(f'not finished in {self.settings.clip_timeout} s', 'timeout', FAILED) from None
            raise self.media_error(str(error)) from None
        duration, nominal = measure(made), min(segment.end, length) - segment.start
        if abs(duration - nominal) > tolerance(self.settings) + (slack if length < segment.end + slack else 0):
            words = self.log.read_text(errors='replace')
            raise Refused(f'{duration:.3f} s instead of {nominal:.3f} s. {words}', 'wrong length', FAILED)
        return duration

    def media_error(self, error: str) -> Refused:
        words = self.log.read_text(errors='replace') or error
        if 'no space left' in words.lower():
            return Refused(words, 'disk', STOP)
        return Refused(words, 'media 403' if '403 Forbidden' in words else 'media', FAILED)

    def fetch(self, task: Task) -> Result:
        """One clip, from the question to its place in wavs/."""
        path = self.home.wavs / f'{clip_id(task.segment.ytid)}.{self.settings.ext}'
        nominal = task.segment.end - task.segment.start
        if path.exists() and abs((duration := measure(path)) - nominal) <= tolerance(self.settings):
            return self.done(task, path, {'title': '', 'format_id': ''}, duration)  # a crash came before its journal line
        made = self.scratch / path.name
        info, cheap_failed = self.ask_twice(task)
        try:
            duration = self.cut(info, task, made)
        except Refused as refused:
            if refused.reason != 'media 403':
                raise
            info = self.ask(task.segment.ytid, cheap=False)  # the address may have gone stale
            duration = self.cut(info, task, made)
        publish(made, path)
        return self.done(task, path, info, duration)._replace(cheap_failed=cheap_failed)

    def done(self, task: Task, path: Path, info: dict[str, Any], duration: float) -> Result:
        place = {'path': path.relative_to(self.home.root).as_posix(), 'ext': self.settings.ext, 'bytes': path.stat().st_size}
        known = {'title': info['title'], 'format_id': info['format_id'], 'duration': round(duration, 3)}
        return Result(task, DONE, DONE, record={**place, **known})


worker: Worker  # of this process; start_worker sets it


def start_worker(*args: Any) -> None:
    global worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides; a terminal sends Ctrl-C to all
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # unwinds, and so ends ffmpeg, too
    worker = Worker(*args)
    gc.freeze()


def fetch(task: Task) -> Result:
    """The worker's edge: whatever happens comes back as a Result."""
    try:
        return worker.fetch(task)
    except Refused as refused:
        return Result(task, refused.verdict, refused.reason, refused.words)
    except OSError as error:
        return Result(task, STOP, 'disk', str(error))
    except Exception:  # the one place for what nobody expected; its traceback is shown and kept
        return Result(task, FAILED, 'unexpected', traceback.format_exc())


# ------------------------------------------------------------------------------------------------------------ remember


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """The journal's entries, oldest first; what is not one (a torn write) is passed over, its row is simply not settled."""
    if not path.exists():
        return
    with open(path, encoding='utf-8', errors='replace') as lines:
        for line in lines:
            with contextlib.suppress(json.JSONDecodeError):
                yield json.loads(line)


def read_settled(settings: Settings, home: Home) -> dict[str, str]:
    """Id -> done, or the reason why it is gone: the rows that need nothing more."""
    settled: dict[str, str] = {}
    for entry in read_journal(home.journal):
        if entry['status'] == DONE and entry['ext'] == settings.ext:
            settled[entry['id']] = DONE
        elif entry['status'] == GONE and entry['reason'] not in settings.again:
            settled.setdefault(entry['id'], entry['reason'])
        elif entry['status'] == 'lost':
            settled.pop(entry['id'], None)
    return settled


class Journal:
    """The one writer of wavs/journal.jsonl: a line of JSON per settled row, flushed as it is written."""

    def __init__(self, path: Path, labels: dict[str, str]) -> None:
        self.labels = labels
        self.unknown: set[str] = set()
        self.file = open(path, 'a+b')  # noqa: SIM115  # closed by __exit__
        end = self.file.seek(0, os.SEEK_END)
        while end and (self.file.seek(end - 1), self.file.read(1))[1] != b'\n':
            end -= 1
        self.file.truncate(end)  # a torn last line

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def add(self, entry: dict[str, Any]) -> None:
        self.file.write(json.dumps(entry, ensure_ascii=False).encode() + b'\n')
        self.file.flush()

    def settle(self, result: Result) -> None:
        """Write down what became of a row; a clip's entry is its metadata record."""
        segment = result.task.segment
        entry = {'id': clip_id(segment.ytid), 'status': result.verdict}
        if result.verdict != DONE:
            return self.add({**entry, 'reason': result.reason, 'message': result.message, 'split': segment.split})
        for tag in set(segment.tags) - self.labels.keys() - self.unknown:
            self.unknown.add(tag)
            say(f'{tag}: a tag without a label in class_labels_indices.csv, kept as it is (first in {segment.ytid})')
        named = {'tags': segment.tags, 'labels': [self.labels.get(tag, tag) for tag in segment.tags]}
        row = {'url': f'https://www.youtube.com/watch?v={segment.ytid}', **named}
        row |= {'ytid': segment.ytid, 'split': segment.split, 'start': segment.start, 'end': segment.end}
        return self.add({**entry, **row, **result.record})


RECORD = ['id', 'path', 'title', 'url', 'tags', 'labels', 'ytid', 'split', 'start', 'end', 'duration', 'format_id', 'ext']


def merge_metadata(home: Home) -> int:
    """Make audioset_metadata.json from the journal: id -> record, a record a line; returns their number."""
    latest = {entry['id']: n for n, entry in enumerate(read_journal(home.journal)) if entry['status'] in (DONE, 'lost')}
    count = 0

    def lines() -> Iterator[str]:
        nonlocal count
        for n, entry in enumerate(read_journal(home.journal)):
            if entry['status'] == DONE and latest[entry['id']] == n:
                record = json.dumps({key: entry[key] for key in RECORD}, ensure_ascii=False)
                yield f'{"," if count else ""}\n"{entry["id"]}": {record}'
                count += 1

    replace_file(home.metadata, itertools.chain('{', lines(), ['\n}\n']))
    return count


def is_damaged(args: tuple[Path, dict[str, Any]]) -> tuple[str, bool]:
    """Whether a clip is missing or not what its entry says."""
    root, entry = args
    path = root / entry['path']
    whole = path.exists() and path.stat().st_size == entry['bytes'] and abs(measure(path) - entry['duration']) < 0.01
    return entry['id'], not whole


def verify_clips(settings: Settings, home: Home, journal: Journal) -> None:
    """Look at every clip that the journal names; what is not as recorded becomes a row to fetch again."""
    done = {e['id']: e for e in read_journal(home.journal) if e['status'] in (DONE, 'lost')}
    done = {key: entry for key, entry in done.items() if entry['status'] == DONE and entry['ext'] == settings.ext}
    with multiprocessing.get_context('spawn').Pool(os.cpu_count()) as pool:
        looked = pool.imap_unordered(is_damaged, ((home.root, entry) for entry in done.values()), chunksize=64)
        lost = [key for key, damaged in tqdm(looked, 'verifying', len(done), disable=not sys.stderr.isatty()) if damaged]
    for key in lost:
        (home.root / done[key]['path']).unlink(missing_ok=True)
        journal.add({'id': key, 'status': 'lost'})
    say(f'verified {len(done)} clips: {len(lost)} missing or damaged')


# ----------------------------------------------------------------------------------------------------------------- run


def say(message: str) -> None:
    """A line for the user, above the bar if there is one."""
    with tqdm.external_write_mode():
        print(message, flush=True)


class Progress:
    """A bar over all rows of the run on a terminal, a plain line now and then elsewhere; counts by verdict and reason."""

    EVERY = 10  # s between plain lines

    def __init__(self, total: int, before: Counter[str]) -> None:
        self.reasons = Counter({(DONE if reason == DONE else GONE, reason): n for reason, n in before.items()})
        self.examples: dict[str, str] = {}
        self.started = self.spoke = time.monotonic()
        self.settled = before.total()
        self.bar = tqdm(total=total, initial=self.settled, unit='clip', disable=not sys.stderr.isatty(), dynamic_ncols=True)

    def count(self, verdict: str) -> int:
        return sum(n for (of, _), n in self.reasons.items() if of == verdict)

    def update(self, result: Result) -> None:
        self.reasons[result.verdict, result.reason] += 1
        self.examples.setdefault(result.reason, f'{result.task.segment.ytid}: {result.message}')
        self.bar.set_postfix({verdict: self.count(verdict) for verdict in (DONE, GONE, FAILED)}, refresh=False)
        self.bar.update()
        if self.bar.disable and time.monotonic() - self.spoke > self.EVERY:
            self.spoke = time.monotonic()
            self.speak()

    def speak(self) -> None:
        """The bar's text as a line."""
        n, counts = self.reasons.total(), ' '.join(f'{v}={self.count(v)}' for v in (DONE, GONE, FAILED))
        meter = {'n': n, 'total': self.bar.total, 'initial': self.settled, 'elapsed': time.monotonic() - self.started}
        print(tqdm.format_meter(**meter, ncols=0, unit='clip', postfix=counts), file=sys.stderr, flush=True)

    def table(self, skipped: int) -> str:
        """What became of the rows, by verdict and reason, with one example of each new reason."""
        lines = []
        for verdict in (DONE, GONE, FAILED):
            lines.append(f'{verdict:<16}{self.count(verdict):>9}')
            for (of, reason), n in self.reasons.most_common():
                if of == verdict != DONE:
                    lines.append(f'  {reason:<14}{n:>9}  {self.examples.get(reason, "")[:110]}'.rstrip())
        lines.append(f'{"left":<16}{self.bar.total - self.reasons.total():>9}')
        return '\n'.join([*lines, *([f'{"rows skipped":<16}{skipped:>9}'] if skipped else [])])


@contextlib.contextmanager
def no_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back while processes start: they inherit that and never print a traceback of their own."""
    if not hasattr(signal, 'pthread_sigmask'):
        yield
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextlib.contextmanager
def open_pool(processes: int, args: tuple[Any, ...]) -> Iterator[Any]:
    """A Pool whose workers start from a server that has yt-dlp loaded, where the system can fork; gone afterwards."""
    method = 'forkserver' if 'forkserver' in multiprocessing.get_all_start_methods() else 'spawn'
    context = multiprocessing.get_context(method)
    if method == 'forkserver':
        modules = ['yt_dlp.extractor.youtube', 'yt_dlp.downloader.external', 'mutagen.mp4', 'tqdm']
        context.set_forkserver_preload(modules)
    with no_interrupts():
        pool = context.Pool(processes, start_worker, args, maxtasksperchild=1000)
    try:
        yield pool
    finally:
        late = threading.Timer(2, lambda: [process.kill() for process in multiprocessing.active_children()])
        late.start()
        pool.terminate()
        pool.join()
        late.cancel()


class Queue:
    """Which task is next: a retry whose pause is over, else a new row."""

    def __init__(self, segments: Iterator[Segment], settings: Settings) -> None:
        self.segments, self.settings = segments, settings
        self.retries: list[tuple[float, int, Task]] = []  # a heap by the time at which they are due
        self.order = itertools.count()
        self.exhausted = False

    def next(self) -> Task | None:
        if self.retries and self.retries[0][0] <= time.monotonic():
            return heapq.heappop(self.retries)[2]
        segment = next(self.segments, None)
        self.exhausted = segment is None
        return Task(segment) if segment else None

    def retry(self, task: Task) -> bool:
        """Take a failed task back, after a growing, jittered pause; False if it was tried often enough."""
        if task.tries >= self.settings.retries:
            return False
        due = time.monotonic() + self.settings.retry_pause * 2**task.tries * random.uniform(0.75, 1.25)
        heapq.heappush(self.retries, (due, next(self.order), task._replace(tries=task.tries + 1)))
        return True


class Watch:
    """What a row's result says about all of them: whether the cheap way still pays, and whether to stop."""

    def __init__(self, settings: Settings) -> None:
        self.cheap = True
        self.misses = 0  # rows in a row that only the full extraction brought
        self.outage = 0  # results in a row that blame the network
        self.enough = max(10, 2 * settings.num_processes)
        self.stop = ''  # why the run ends early

    def see(self, result: Result) -> None:
        if result.verdict == DONE:
            self.misses, self.outage = self.misses + 1 if result.cheap_failed else 0, 0
        if self.cheap and self.misses >= 5:
            self.cheap = False
            say('the cheap request keeps failing where the full extraction succeeds: going on with the full one')
        self.outage = self.outage + 1 if result.reason in ('network', 'media 403') else 0
        words = f'{result.reason}: {result.message}'
        if result.verdict == THROTTLED:
            self.stop = f'YouTube refuses us ({words}); {REMEDY}; then run the same command again'
        elif result.verdict == STOP:
            self.stop = f'{words}; mend that, then run the same command again'
        elif self.outage >= self.enough:
            self.stop = f'no clip among the last {self.enough} results ({words}); check the network, then run it again'


def download(settings: Settings, segments: Iterator[Segment], args: tuple[Any, ...], settle: Callable[[Result], None]) -> str:
    """Fan the segments out and settle what comes back; returns why it stopped early, '' if it did not."""
    results: queue.SimpleQueue[Any] = queue.SimpleQueue()
    todo, watch, flying = Queue(segments, settings), Watch(settings), {}
    patience = 2 * settings.clip_timeout + 20 * settings.timeout  # s; a task that takes longer has lost its worker
    with open_pool(settings.num_processes, args) as pool:
        while True:
            while not watch.stop and len(flying) < settings.num_processes and (task := todo.next()):
                task = task._replace(cheap=watch.cheap)
                flying[task.segment.ytid] = task, time.monotonic() + patience
                pool.apply_async(fetch, (task,), callback=results.put, error_callback=results.put)
            if not flying and (watch.stop or not todo.retries and todo.exhausted):
                return watch.stop
            for result in [*arrived(results), *overdue(flying)]:
                if flying.pop(result.task.segment.ytid, None):
                    watch.see(result)
                    if result.verdict in (DONE, GONE) or final(result, todo, watch):
                        settle(result)


def arrived(results: queue.SimpleQueue[Any]) -> list[Result]:
    """The next result, if it comes within a moment."""
    try:
        result = results.get(timeout=0.2)
    except queue.Empty:
        return []
    if isinstance(result, BaseException):
        raise result
    return [result]


def overdue(flying: dict[str, tuple[Task, float]]) -> list[Result]:
    now = time.monotonic()
    return [Result(task, FAILED, 'lost', 'its worker never answered') for task, due in flying.values() if due < now]


def final(result: Result, todo: Queue, watch: Watch) -> bool:
    """Whether a failure is to be recorded; what is not the row's fault leaves no trace."""
    if result.verdict in (THROTTLED, STOP) or watch.stop:
        return False
    return result.reason in PERSISTENT or not todo.retry(result.task)


# ---------------------------------------------------------------------------------------------------------------- main
KINDS = {'int': int, 'float': (int, float), 'str': str, 'bool': bool, 'list[str]': list, 'dict': dict}


class Setting(NamedTuple):
    """A global of the settings block, as its own source line describes it."""

    name: str
    kind: str
    optional: bool
    help: str

    def accepts(self, value: Any) -> bool:
        if value is None:
            return self.optional
        return isinstance(value, KINDS[self.kind]) and (self.kind == 'bool' or not isinstance(value, bool))

    def parse(self, text: str) -> Any:
        """The value of a flag; ValueError if it is none."""
        if self.optional and text.lower() == 'none':
            return None
        return json.loads(text) if self.kind == 'dict' else {'int': int, 'float': float}.get(self.kind, str)(text)


def read_settings_block() -> list[Setting]:
    source = Path(__file__).read_text(encoding='utf-8').partition('--- settings\n')[2].partition('\n# ---')[0]
    lines = re.findall(r'^(\w+): (.+?)( \| None)? = .+?  # (.+)$', source, re.M)
    return [Setting(name, kind, bool(none), about) for name, kind, none, about in lines]


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise Oops(message)


def read_settings(argv: list[str] | None) -> Settings:
    """The globals, and the flags made from them over those."""
    described = read_settings_block()
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    for setting in described:
        flag, default = '--' + setting.name.replace('_', '-'), globals()[setting.name]
        more: dict[str, Any] = {'type': setting.parse, 'metavar': setting.kind.partition('[')[0].upper()}
        if setting.kind == 'bool':
            more = {'action': argparse.BooleanOptionalAction}
        elif setting.kind == 'list[str]':
            more = {'nargs': '*', 'metavar': 'NAME'}
        parser.add_argument(flag, dest=setting.name, default=default, help=setting.help.replace('%', '%%'), **more)
        setting.parse.__func__.__name__ = setting.kind  # argparse names it when a value does not fit
    settings = parser.parse_args(argv)
    for setting in described:
        if not setting.accepts(getattr(settings, setting.name)):
            raise Oops(f'{setting.name} = {getattr(settings, setting.name)!r} is not {setting.kind}')
    check(settings)
    return settings


def check(settings: Settings) -> None:
    """Refuse values and combinations that cannot work."""
    s = settings
    rates = RATES.get(s.ext, range(1, 384001))
    rules = [
        (s.ext in AUDIO or is_video(s), f'ext = {s.ext!r}: use one of {", ".join(AUDIO)} or mp4'),
        (bool(s.splits), 'splits is empty: name at least one list'),
        (all(re.fullmatch(r'[\w.-]+', split) for split in s.splits), f'splits = {s.splits}: a name is letters, digits, _, - and .'),
        (s.sample_rate is None or s.sample_rate in rates, f'sample_rate = {s.sample_rate}: {s.ext} takes {", ".join(map(str, sorted(rates)[:20]))} Hz'),
        (s.channels in (None, 1, 2), f'channels = {s.channels}: use 1 or 2'),
        (s.limit is None or s.limit > 0, f'limit = {s.limit}: use a number above 0, or None'),
        (s.num_processes > 0, f'num_processes = {s.num_processes}: use a number above 0'),
        (s.retries >= 0 and s.retry_pause >= 0, 'retries and retry_pause: use numbers from 0'),
        (s.timeout > 0 and s.clip_timeout > 0, 'timeout and clip_timeout: use seconds above 0'),
        (s.max_height > 0, f'max_height = {s.max_height}: use pixels above 0'),
        (is_video(s) or not s.exact_frames, f'exact_frames is for mp4, not for {s.ext}'),
        (not (s.verify and s.merge), 'verify and merge: one at a time'),
        (set(s.again) <= {v[0] for v in VERDICTS if v[1] == GONE} | {'too short'}, f'again = {s.again}: name reasons of gone rows'),
    ]  # fmt: skip
    for holds, message in rules:
        if not holds:
            raise Oops(message)


def check_trust() -> None:
    """One proxy and one CA file for yt-dlp, ffmpeg and us: ffmpeg reads http_proxy only, and an address is bound to its asker."""
    proxies = urllib.request.getproxies()
    if proxy := proxies.get('https') or proxies.get('all') or proxies.get('http'):
        if proxy.startswith('socks'):
            raise Oops('the proxy in the environment is a SOCKS proxy, which ffmpeg cannot use: set https_proxy to an http one')
        os.environ['https_proxy'] = os.environ['http_proxy'] = proxy
    if (bundle := os.environ.get('SSL_CERT_FILE')) and not os.path.isfile(bundle):
        raise Oops(f'SSL_CERT_FILE = {bundle}: no such file')


def open_home(settings: Settings) -> Home:
    """The folders, made where they are missing; Oops if they cannot be written."""
    root = Path(settings.root or Path(__file__).parent).resolve()
    wavs = root / 'wavs'
    files = root / settings.cookie_path, wavs / 'journal.jsonl', root / 'audioset_metadata.json'
    home = Home(root, root / 'csvs', wavs, root / 'temps', *files)
    try:
        for folder in (home.csvs, home.wavs, home.temps):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
    except OSError as error:
        raise Oops(f'root = {root}: cannot be written ({error.strerror})') from None
    return home


def check_cookies(home: Home) -> None:
    if not home.cookies.exists():
        return
    head = home.cookies.read_text(encoding='utf-8', errors='replace').lstrip('\ufeff').splitlines()
    rows = [line for line in head if line.strip() and (not line.startswith('#') or line.startswith('#HttpOnly_'))]
    if not all(len(line.split('\t')) == 7 for line in rows):
        raise Oops(f'{home.cookies}: not a Netscape cookie file (7 fields with tabs between); export it as README says, or delete it')


def find_ffmpeg(settings: Settings) -> set[str]:
    """Settle which ffmpeg it is; returns which of the wanted http options it has."""
    import imageio_ffmpeg

    found = shutil.which(settings.ffmpeg) if settings.ffmpeg else imageio_ffmpeg.get_ffmpeg_exe()
    if not found:
        raise Oops(f'ffmpeg = {settings.ffmpeg!r}: no such program')
    settings.ffmpeg = found
    told = subprocess.run([found, '-hide_banner', '-h', 'protocol=http'], capture_output=True, text=True, errors='replace')
    if told.returncode:
        raise Oops(f'{found}: does not run as ffmpeg does ({told.stderr.strip()[:100]})')
    wanted = {'request_size', 'short_seek_size'}
    has = {flag for flag in wanted if f'-{flag} ' in told.stdout}
    if has != wanted:
        say(f'{found} is too old for {", ".join(sorted(wanted - has))}: going on without (more bytes per clip)')
    return has


def survey(settings: Settings, home: Home, settled: dict[str, str]) -> tuple[int, Counter[str], int]:
    """Read the lists once: how many rows, how many settled by reason, how many skipped (each said, up to a point)."""
    total, before, skipped = 0, Counter(), 0

    def complain(message: str) -> None:
        nonlocal skipped
        skipped += 1
        if skipped <= 50:
            say(message if skipped < 50 else 'more rows are skipped; the summary counts them')

    for segment in read_segments(settings, home, complain):
        total += 1
        if reason := settled.get(clip_id(segment.ytid)):
            before[reason] += 1
    return total, before, skipped


def run(settings: Settings, home: Home) -> int:
    """The job: survey, download what is not settled, merge. Returns the exit status."""
    check_cookies(home)
    for name in ['class_labels_indices', *(f'{split}_segments' for split in settings.splits)]:
        provide(home.csvs / f'{name}.csv')
    with Journal(home.journal, read_labels(home.csvs / 'class_labels_indices.csv')) as journal:
        if settings.verify:
            verify_clips(settings, home, journal)
        settled = read_settled(settings, home)
        total, before, skipped = survey(settings, home, settled)
        todo = total - before.total()
        counts = f'{total} rows, {before.total()} settled ({before[DONE]} done), {todo} to do'
        say(f'{", ".join(settings.splits)}: {counts}, {settings.ext} in {home.wavs}')
        progress, stop = Progress(total, before), ''
        if todo:
            stop = fetch_rows(settings, home, settled, journal, progress)
        progress.bar.close()
    print(f'{progress.table(skipped)}\n{merge_metadata(home)} records in {home.metadata}')
    if stop:
        print(f'stopped: {stop}', file=sys.stderr)
    return 1 if stop or progress.reasons.total() - progress.count(FAILED) < total else 0


def fetch_rows(settings: Settings, home: Home, settled: dict[str, str], journal: Journal, progress: Progress) -> str:
    """Download the rows that are not settled, in a scratch folder of this run; returns why it stopped early, or ''."""

    def settle(result: Result) -> None:
        if result.reason == 'unexpected' and not progress.reasons[FAILED, 'unexpected']:
            say(f'unexpected, please report it:\n{result.message}')
        journal.settle(result)
        progress.update(result)

    http_flags = find_ffmpeg(settings)
    segments = (s for s in read_segments(settings, home, lambda _: None) if clip_id(s.ytid) not in settled)
    for left in [*home.temps.iterdir(), home.wavs / '.parts']:  # of a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix='run-', dir=home.temps, ignore_cleanup_errors=True) as scratch:
        return download(settings, segments, (settings, home, Path(scratch), http_flags), settle)


def main(argv: list[str] | None = None) -> int:
    """0: every row is settled; 1: run it again; 2: settings or input are wrong; 130: interrupted."""
    try:
        settings = read_settings(argv)
        check_trust()
        home = open_home(settings)
    except Oops as error:
        print(f'download.py: {error}', file=sys.stderr)
        return 2
    try:
        if settings.merge:
            print(f'{merge_metadata(home)} records in {home.metadata}')
            return 0
        return run(settings, home)
    except Oops as error:
        print(f'download.py: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f'\ninterrupted; {merge_metadata(home)} records in {home.metadata}; the same command goes on', file=sys.stderr)
        return 130


if __name__ == '__main__':
    raise SystemExit(main())
