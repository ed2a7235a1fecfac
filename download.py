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
import heapq
import http.client
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
from typing import Any, NamedTuple, NoReturn

from tqdm import tqdm

# ---------------------------------------------------------------------------------------------------------- settings
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
num_processes: int = min(4 * (os.cpu_count() or 1), 32)  # clips in flight; they mostly wait for the network
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

# ------------------------------------------------------------------------------------------------------------- types
BUCKET = 'https://storage.googleapis.com/us_audioset/youtube_corpus/v1/csv/'
IN_MP4 = ['-movflags', '+faststart', '-f', 'mp4']
ENCODE = {  # ext -> how ffmpeg makes its sound
    'm4a': ['-c:a', 'aac', '-b:a', '128k', *IN_MP4],
    'wav': ['-c:a', 'pcm_s16le', '-f', 'wav'],
    'flac': ['-c:a', 'flac', '-sample_fmt', 's16', '-frame_size', '4096', '-f', 'flac'],  # else the first frame's: may be 8
    'opus': ['-c:a', 'libopus', '-b:a', '96k', '-f', 'opus'],
    'mp3': ['-c:a', 'libmp3lame', '-q:a', '2', '-f', 'mp3'],
}
ENCODE['mp4'] = ENCODE['m4a']
AAC_RATES = [7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000]  # Hz
RATES = {'m4a': AAC_RATES, 'mp4': AAC_RATES, 'opus': [8000, 12000, 16000, 24000, 48000], 'mp3': AAC_RATES[1:10]}

DONE, GONE, FAILED, THROTTLED, STOP, LOST = 'done', 'gone', 'failed', 'throttled', 'stop', 'lost'
VERDICTS = [  # reason, verdict, believed even from the cheap request, words of YouTube or yt-dlp; the first match counts
    ('cookies', STOP, True, r'cookies are no longer valid|failed to load cookies'),
    ('captcha', THROTTLED, False, r'captcha'),
    ('bot check', THROTTLED, False, r'not a bot'),
    ('rate limit', THROTTLED, False, r'rate-limited|try again later|http error 429'),
    ('blocked', THROTTLED, False, r'likely being blocked|http error 403'),
    ('age', GONE, False, r'confirm your age|age-restricted'),
    ('members', GONE, True, r'members-only|join this channel|premium|requires payment'),
    ('private', GONE, True, r'private video|video is private'),
    ('terminated', GONE, True, r'account .*terminated'),
    ('copyright', GONE, True, r'copyright'),
    ('country', GONE, True, r'in your country'),
    ('removed', GONE, True, r'has been removed'),
    ('drm', GONE, False, r'drm protected'),
    ('live', FAILED, True, r'live event|premieres in|not currently live'),
    ('no format', FAILED, False, r'requested format|no video formats'),
    ('network', FAILED, True, r'timed out|connection|reset|resolve|name resolution|unreachable|refused|http error 5|ssl|proxy'),
    ('unavailable', GONE, False, r"video (is )?(un|not |no longer )available|isn't available|recording is not|does not exist"),
    ('other', FAILED, False, r''),
]
TOO_SHORT = 'too short'  # the reason why a video that ends before the segment is gone
REMEDY = 'wait an hour, or give it cookies.txt (see README), or another address'

Settings = argparse.Namespace  # the globals, the flags over them and the paths, as one value that travels to the workers


class Oops(Exception):
    """What the user can mend; its text is the one line that says what, where and how."""


class Segment(NamedTuple):
    """A row to fetch, and how."""

    ytid: str
    start: float  # s
    end: float  # s
    tags: tuple[str, ...]
    split: str
    tries: int = 0
    cheap: bool = True  # ask with the single cheap request first

    @property
    def id(self) -> str:
        """Its name in the journal, the metadata and wavs/."""
        return f'id_{self.ytid}'

    @property
    def url(self) -> str:
        return f'https://www.youtube.com/watch?v={self.ytid}'


class Result(NamedTuple):
    """What became of a segment. `record` holds the fields that only the fetching could tell."""

    segment: Segment
    verdict: str
    reason: str
    message: str = ''
    record: dict[str, Any] = {}
    cheap_failed: bool = False  # the full extraction brought what the cheap request did not


class Refused(Exception):
    """YouTube or ffmpeg said no: their words, and what they mean."""

    def __init__(self, words: str, reason: str = '', verdict: str = FAILED) -> None:
        super().__init__(words)
        plain = ' '.join(words.partition(' Use --cookies')[0].split())  # the rest is advice for another program
        self.words = re.sub(r'\?\S{40,}', '?…', plain)[:300]  # the address of a medium is long and holds the user's own
        self.reason, self.verdict, self.sure = (reason, verdict, True) if reason else judge(words)


def judge(words: str) -> tuple[str, str, bool]:
    """Reason, verdict and whether the cheap request may be believed: the one place that interprets refusals."""
    plain = words.lower().replace('’', "'")
    return next((reason, verdict, sure) for reason, verdict, sure, pattern in VERDICTS if re.search(pattern, plain))


# -------------------------------------------------------------------------------------------------------------- read


def parse_row(line: str, split: str) -> Segment:
    """One line `YTID, start, end, "tag,tag"`, times in s; ValueError says what is wrong with it."""
    fields = next(csv.reader([line], skipinitialspace=True))
    if len(fields) < 4:
        raise ValueError(f'{len(fields)} of 4 fields')
    if not re.fullmatch(r'[A-Za-z0-9_-]{11}', fields[0]):
        raise ValueError(f'{fields[0]!r} is not a video id')
    start, end = float(fields[1]), float(fields[2])
    if not 0 <= start < end < math.inf:
        raise ValueError(f'no clip from {start} to {end} s')
    tags = tuple(tag.strip() for field in fields[3:] for tag in field.split(',') if tag.strip())
    return Segment(fields[0], start, end, tags, split)


def read_rows(path: Path, split: str, complain: Callable[[str], object]) -> Iterator[Segment]:
    """The segments of one list, a line at a time (so that a stray quote costs its own row only)."""
    with open(path, encoding='utf-8-sig', errors='replace') as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith('#'):
                continue
            try:
                yield parse_row(line, split)
            except (ValueError, csv.Error) as error:
                complain(f'{path.name}, line {number}: skipped, {error}')


def read_segments(settings: Settings, complain: Callable[[str], object]) -> Iterator[Segment]:
    """The rows of this run: all splits in order, the first row of each id, up to `limit`."""
    seen: dict[str, str] = {}
    for split in settings.splits:
        for segment in read_rows(settings.csvs / f'{split}_segments.csv', split, complain):
            if segment.ytid in seen:
                complain(f'{split}: skipped, {segment.ytid} is already a row of {seen[segment.ytid]}')
                continue
            if len(seen) == settings.limit:
                return
            seen[segment.ytid] = split
            yield segment


def read_labels(path: Path) -> dict[str, str]:
    """Tag (MID) -> label (display name), as published."""
    with open(path, encoding='utf-8-sig', newline='') as lines:
        rows = list(csv.DictReader(lines))
    if not rows or not {'mid', 'display_name'} <= rows[0].keys():
        raise Oops(f'{path}: not the list of labels, whose header names mid and display_name; delete it to fetch it anew')
    return {row['mid']: row['display_name'] for row in rows}


def replace_file(path: Path, parts: Iterable[str]) -> None:
    """Write a file under another name and rename it, so that it is there whole or not at all."""
    made = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        with open(made, 'w', encoding='utf-8', newline='') as out:
            out.writelines(parts)
        os.replace(made, path)
    finally:
        made.unlink(missing_ok=True)


def say(message: str) -> None:
    """A line for the user, above the bar if there is one."""
    with tqdm.external_write_mode():
        print(message, flush=True)


def trusted_certificates() -> str:
    """The CA file that yt-dlp, ffmpeg and we trust alike: the user's, else certifi's."""
    import certifi

    return os.environ.get('SSL_CERT_FILE') or certifi.where()


def provide(path: Path) -> None:
    """Fetch a list from AudioSet's bucket, unless the user or an earlier run put it there."""
    if path.exists():
        return
    try:
        context = ssl.create_default_context(cafile=trusted_certificates())
        with urllib.request.urlopen(BUCKET + path.name, timeout=60, context=context) as answer:
            content = answer.read()
    except (OSError, http.client.HTTPException) as error:
        there = ', '.join(sorted(p.name for p in path.parent.glob('*.csv'))) or 'nothing'
        why = f'{BUCKET}{path.name} cannot be fetched ({getattr(error, "reason", error)})'
        raise Oops(f'{path} is not there (but {there}), and {why}; put it there yourself') from None
    replace_file(path, [content.decode(errors='replace')])
    say(f'fetched {path.name}')


# ------------------------------------------------------------------------------------------------------------- fetch


class Output(NamedTuple):
    """What depends on the kind of output."""

    selector: str  # of formats, in yt-dlp's language
    mimes: tuple[str, ...]  # what to look for in YouTube's answer before anything else
    tolerance: float  # s that a clip may be from its nominal length: containers round, mp4 keeps frames behind an edit list
    streams: list[str]  # ffmpeg's words for what is not the sound


def output_for(settings: Settings) -> Output:
    """The one branch on audio or video. H.264 comes before AV1, which few training pipelines can decode."""
    if settings.ext != 'mp4':
        return Output('bestaudio[ext=m4a]/bestaudio/best', ('audio/mp4',), 0.1, ['-vn'])
    cap, sound = f'[height<={settings.max_height}]', '+(ba[ext=m4a]/ba)'
    selector = f'bv[vcodec^=avc1]{cap}{sound}/bv[ext=mp4]{cap}{sound}/b[ext=mp4]{cap}/bv{cap}{sound}/b{cap}'
    frames = ['-c:v', 'libx264', '-preset', 'veryfast', '-crf', '20'] if settings.exact_frames else []
    return Output(selector, ('video/mp4; codecs="avc1', 'audio/mp4'), 0.2, frames)


def output_args(settings: Settings, segment: Segment, codec: str) -> list[str]:
    """What ffmpeg gets for its output; `codec` is the source's. AAC stays as it is where AAC is wanted."""
    streams = output_for(settings).streams
    if settings.ext in ('m4a', 'mp4') and codec.startswith('mp4a') and not (settings.sample_rate or settings.channels):
        return [*streams, '-c:a', 'copy', *IN_MP4]
    rate = ['-ar', str(settings.sample_rate)] if settings.sample_rate else []
    count = ['-ac', str(settings.channels)] if settings.channels else []
    return [*streams, *ENCODE[settings.ext], *rate, *count, '-t', str(segment.end - segment.start)]  # to the sample


def input_args(settings: Settings, segment: Segment, source: dict[str, Any], http_flags: set[str]) -> list[str]:
    """What ffmpeg gets before an input: whom to trust, the seconds to read, and in requests that a clip fits into."""
    length = segment.end - segment.start
    size = int((source.get('tbr') or 1000) * 125 * (length + 12))  # bytes; a fragment has 10 s and begins before the clip
    args = ['-loglevel', 'error', '-rw_timeout', str(int(settings.timeout * 1e6))]  # µs
    args += ['-tls_verify', '1', '-ca_file', trusted_certificates()]
    for flag, value in {'request_size': size, 'short_seek_size': 1 << 18}.items():
        args += [f'-{flag}', str(value)] if flag in http_flags else []
    args += ['-ss', str(segment.start)] if segment.start else []  # seeking to 0 costs Opus its first packet
    return [*args, '-t', str(length)]


class Listener(list):
    """yt-dlp's logger: keeps the warnings of a question, for a 429 or a network error is told in a warning only."""

    warning = list.append

    def hint(self, words: str) -> str:
        """The words of an error, or of the warning that tells its cause; of expired cookies even without an error."""
        causes = {'cookies'}
        if words and judge(words)[0] in ('other', 'no format'):  # too vague to be the cause
            causes |= {'network', *(reason for reason, verdict, *_ in VERDICTS if verdict == THROTTLED)}
        return next((warning for warning in self if judge(warning)[0] in causes), words)

    def debug(self, message: str) -> None:
        pass

    error = debug


def narrow(response: dict[str, Any], mimes: tuple[str, ...]) -> dict[str, Any]:
    """Drop what our selector would not take from YouTube's answer: yt-dlp spends most of its time on that."""
    streams = response.get('streamingData') or {}
    offered = streams.get('adaptiveFormats') or []
    kept = [[made for made in offered if made.get('mimeType', '').startswith(mime)] for mime in mimes]
    if kept and all(kept):
        streams['adaptiveFormats'] = sum(kept, [])
    for unused in ('captions', 'storyboards'):
        response.pop(unused, None)
    return response


def cheap_extractor(settings: Settings) -> Any:
    """yt-dlp's YouTube extractor, narrowed. Where a later yt-dlp no longer calls the method, it is only slower."""
    from yt_dlp.extractor.youtube import YoutubeIE as Stock

    mimes = () if 'format' in settings.ydl_opts else output_for(settings).mimes

    class YoutubeIE(Stock):  # its name is the key under which yt-dlp looks for its arguments
        def _extract_player_response(self, *args: Any, **kwargs: Any) -> Any:
            response = super()._extract_player_response(*args, **kwargs)
            return narrow(response, mimes) if response else response

    return YoutubeIE()


def open_ydl(settings: Settings, listener: Listener, cookies: Path | None, cheap: bool) -> Any:
    """A YoutubeDL to keep: the cheap one makes one request per video, the full one does all that yt-dlp can do."""
    import yt_dlp

    options: dict[str, Any] = {
        'quiet': True, 'noprogress': True, 'color': 'never', 'logger': listener, 'nopart': True, 'overwrites': True,
        'format': output_for(settings).selector, 'ffmpeg_location': settings.ffmpeg, 'cookiefile': cookies and str(cookies),
        'noplaylist': True, 'socket_timeout': settings.timeout, 'extractor_retries': 0,  # we try a row again, after a pause
        'compat_opts': {'no-certifi'} if os.environ.get('SSL_CERT_FILE') else set(),
        **settings.ydl_opts,
    }  # fmt: skip
    if not cheap:
        return yt_dlp.YoutubeDL(options)
    skip = {'player_skip': ['webpage', 'configs', 'js', 'initial_data'], 'skip': ['hls', 'dash', 'translated_subs']}
    client = {'player_client': [settings.client]} if settings.client else {}  # without JavaScript yt-dlp knows which
    theirs = options.get('extractor_args') or {}
    options['extractor_args'] = {**theirs, 'youtube': {**skip, **client, **theirs.get('youtube', {})}}

    class QuietYoutubeDL(yt_dlp.YoutubeDL):
        def _forceprint(self, *_: Any) -> None:  # else it renders tables of formats that nobody prints
            pass

    ydl = QuietYoutubeDL({**options, 'js_runtimes': {}}, auto_init=False)
    ydl.add_info_extractor(cheap_extractor(settings))
    return ydl


running: set[subprocess.Popen] = set()  # the ffmpegs of this process


def end_at_once(*_: object) -> NoReturn:
    """What SIGTERM does to a worker, wherever it is: no ffmpeg outlives it."""
    for process in running:
        process.kill()
    os._exit(1)


def watched_popen(seconds: float, log: Path) -> type:
    """yt-dlp's process class, for its ffmpeg: ended after so many s (yt-dlp waits for ever), stderr kept in `log`."""
    from yt_dlp.utils import Popen

    class WatchedPopen(Popen):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            with open(log, 'wb') as words:
                super().__init__(*args, stderr=words, **kwargs)
            running.add(self)

        def wait(self, timeout: float | None = None) -> int:
            timer = threading.Timer(seconds, self.kill)  # to wait with a timeout would be to poll
            timer.start()
            try:
                return super().wait(timeout)
            finally:
                timer.cancel()
                running.discard(self)

    return WatchedPopen


def shortest_track(path: Path) -> float:
    """Duration in s of what ends first in an mp4, picture or sound, as its edit lists show them; 0 if there is not both."""
    from mutagen.mp4 import Atoms  # mutagen itself looks at the sound alone

    with open(path, 'rb') as file:
        atoms = Atoms(file)
        _, movie = atoms[b'moov', b'mvhd'].read(file)
        tracks = [track[(b'tkhd',)].read(file)[1] for track in atoms[b'moov'].findall(b'trak')]
    scale = int.from_bytes(movie[12:16] if movie[0] == 0 else movie[20:24], 'big')  # units per s; byte 0 is a version
    lengths = [int.from_bytes(track[20:24] if track[0] == 0 else track[28:36], 'big') for track in tracks]
    return min(lengths) / scale if len(lengths) > 1 else 0.0


def measure(path: Path) -> float:
    """Duration in s; 0 for what is missing, empty or damaged."""
    import mutagen

    try:
        if path.suffix == '.mp4':
            return shortest_track(path)
        made = mutagen.File(path)
    except (mutagen.MutagenError, OSError, KeyError, ValueError):
        return 0.0
    return float(made.info.length) if made is not None and made.info else 0.0  # a file without tags is falsy


def source_duration(info: dict[str, Any], sources: list[dict[str, Any]]) -> tuple[float, float]:
    """Length of the video in s and how far that may be off: YouTube gives whole s for the video, ms for its formats."""
    known = info.get('duration') or math.inf
    exact = [s['filesize_approx'] / s['tbr'] / 125 for s in sources if s.get('filesize_approx') and s.get('tbr')]
    if exact and abs(min(exact) - known) > 0.002:  # else yt-dlp may have it from the whole seconds
        return min(exact), 0.0
    return known, 1.0


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

    def __init__(self, settings: Settings, scratch: Path, http_flags: set[str]) -> None:
        from yt_dlp.downloader import external

        self.settings, self.http_flags, self.tolerance = settings, http_flags, output_for(settings).tolerance
        self.scratch = Path(tempfile.mkdtemp(dir=scratch))  # for the owner's eyes only
        self.log, self.listener, self.ydls = self.scratch / 'ffmpeg.log', Listener(), {}
        self.cookies = self.copy_cookies()
        self.may_be_cheap = not self.cookies and not {'cookiefile', 'cookiesfrombrowser'} & settings.ydl_opts.keys()
        self.log.touch()
        external.Popen = watched_popen(settings.clip_timeout, self.log)

    def copy_cookies(self) -> Path | None:
        """A copy of one's own, for yt-dlp writes cookies back."""
        if not self.settings.cookies:
            return None
        copy = self.scratch / 'cookies.txt'
        with open(os.open(copy, os.O_WRONLY | os.O_CREAT, 0o600), 'w', encoding='utf-8') as out:
            out.write(self.settings.cookies)
        return copy

    def ydl(self, cheap: bool) -> Any:
        if cheap not in self.ydls:
            self.ydls[cheap] = open_ydl(self.settings, self.listener, self.cookies, cheap)
        return self.ydls[cheap]

    def ask(self, segment: Segment, cheap: bool) -> dict[str, Any]:
        """YouTube's description of a video, formats chosen; Refused if it has none for us."""
        from yt_dlp.utils import YoutubeDLError

        self.listener.clear()
        info, words = {}, ''
        try:
            info = self.ydl(cheap).extract_info(segment.url, download=False)
        except YoutubeDLError as error:
            cause = (getattr(error, 'exc_info', None) or [None, error])[1]
            words = getattr(cause, 'orig_msg', None) or str(cause)
        if info.get('live_status') in ('is_live', 'is_upcoming', 'post_live'):
            words = f'live event: {info["live_status"]}'
        if info.get('id', segment.ytid) != segment.ytid:  # a trailer in its place, for one
            words = f'Video unavailable, YouTube offers {info["id"]} instead'
        if words := self.listener.hint(words):
            raise Refused(words)
        return info

    def ask_twice(self, segment: Segment) -> tuple[dict[str, Any], bool]:
        """Ask cheaply, and in full where the answer to that cannot be believed; True if only the full way brought it."""
        cheap = segment.cheap and self.may_be_cheap
        if cheap:
            try:
                return self.ask(segment, cheap=True), False
            except Refused as refused:
                if refused.sure:
                    raise
        return self.ask(segment, cheap=False), cheap

    def cut(self, info: dict[str, Any], segment: Segment, made: Path) -> float:
        """One ffmpeg, started by yt-dlp, makes the final file of the wanted seconds; returns its duration (s)."""
        sources = info.get('requested_formats') or [info]
        length, slack = source_duration(info, sources)
        if segment.start >= length + slack:
            raise Refused(f'the video ends at {length:.3f} s, before {segment.start} s', TOO_SHORT, GONE)
        flags = set() if segment.tries else self.http_flags  # a retry does without what only new ffmpegs have
        inputs = {f'ffmpeg_i{n}': input_args(self.settings, segment, s, flags) for n, s in enumerate(sources, 1)}
        outputs = output_args(self.settings, segment, sources[-1].get('acodec') or '')
        self.run_ffmpeg(info, {**inputs, 'ffmpeg_o': outputs}, made)
        duration, nominal = measure(made), min(segment.end, length) - segment.start
        if not duration or abs(duration - nominal) > self.tolerance + (slack if length < segment.end + slack else 0):
            raise Refused(f'{duration:.3f} s instead of {nominal:.3f} s. {self.ffmpeg_words()}', 'wrong length')
        return duration

    def run_ffmpeg(self, info: dict[str, Any], args: dict[str, list[str]], made: Path) -> None:
        from yt_dlp.downloader.external import FFmpegFD
        from yt_dlp.utils import DownloadError

        ydl, started = self.ydl(self.may_be_cheap), time.monotonic()
        ydl.params['external_downloader_args'] = args
        try:
            FFmpegFD(ydl, ydl.params).download(str(made), info)
        except DownloadError as error:
            words = self.ffmpeg_words() or str(error)
            if 'no space left' in words.lower():
                raise Refused(words, 'system', STOP) from None
            late = time.monotonic() - started >= self.settings.clip_timeout
            raise Refused(words, 'timeout' if late else 'media 403' if '403 Forbidden' in words else 'media') from None

    def ffmpeg_words(self) -> str:
        return self.log.read_text(encoding='utf-8', errors='replace')

    def fetch(self, segment: Segment) -> Result:
        """One clip, from the question to its place in wavs/."""
        path = self.settings.wavs / f'{segment.id}.{self.settings.ext}'
        nominal = segment.end - segment.start
        if path.exists() and (duration := measure(path)) and abs(duration - nominal) <= self.tolerance:
            return self.done(segment, path, {'title': '', 'format_id': ''}, duration)  # a crash came before its journal line
        made = self.scratch / path.name
        try:
            info, cheap_failed = self.ask_twice(segment)
            duration = self.cut(info, segment, made)
            publish(made, path)
        finally:
            made.unlink(missing_ok=True)
        return self.done(segment, path, info, duration)._replace(cheap_failed=cheap_failed)

    def done(self, segment: Segment, path: Path, info: dict[str, Any], duration: float) -> Result:
        known = {'title': info['title'], 'format_id': info['format_id'], 'duration': round(duration, 3)}
        place = {'path': path.relative_to(self.settings.root).as_posix(), 'ext': self.settings.ext}
        return Result(segment, DONE, DONE, record={**place, **known, 'bytes': path.stat().st_size})


worker: Worker | None = None  # of this process
worker_args: tuple[Any, ...] = ()


def start_worker(*args: Any) -> None:
    """Nothing here may fail, for a Pool would start processes for ever: the first clip makes the worker."""
    global worker_args
    worker_args = args
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all; the parent decides
    signal.signal(signal.SIGTERM, end_at_once)


def fetch(segment: Segment) -> Result:
    """The worker's edge: whatever happens comes back as a Result."""
    global worker
    try:
        worker = worker or Worker(*worker_args)
        return worker.fetch(segment)
    except Refused as refused:
        return Result(segment, refused.verdict, refused.reason, refused.words)
    except OSError as error:
        return Result(segment, STOP, 'system', str(error))
    except Exception:  # the one place for what nobody expected; its traceback is shown and kept
        return Result(segment, FAILED, 'unexpected', traceback.format_exc())


# ---------------------------------------------------------------------------------------------------------- remember


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """The journal's entries, oldest first. A torn one is passed over: its row is simply not settled."""
    if not path.exists():
        return
    with open(path, encoding='utf-8', errors='replace') as lines:
        for line in lines:
            with contextlib.suppress(json.JSONDecodeError):
                entry = json.loads(line)
                if isinstance(entry, dict) and {'id', 'status'} <= entry.keys():
                    yield entry


def read_settled(settings: Settings) -> dict[str, str]:
    """Id -> done, or the reason why it is gone: the rows that need nothing more."""
    settled: dict[str, str] = {}
    for entry in read_journal(settings.journal):
        if entry['status'] == DONE and entry['ext'] == settings.ext:
            settled[entry['id']] = DONE
        elif entry['status'] == GONE and settled.get(entry['id']) != DONE:
            settled[entry['id']] = entry['reason']
        elif entry['status'] == LOST and entry['ext'] == settings.ext:
            settled.pop(entry['id'], None)
    return {key: reason for key, reason in settled.items() if reason not in settings.again} if settings.again else settled


def lock(descriptor: int, message: str) -> None:
    """Have a file alone until this process ends, however it ends; Oops if another process has it."""
    try:
        if os.name == 'nt':
            import msvcrt

            os.lseek(descriptor, 1 << 60, os.SEEK_SET)  # beyond the content, which others may read
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        raise Oops(message) from None
    except OSError:  # a file system without locks
        pass


class Journal:
    """The one writer of wavs/journal.jsonl: a line of JSON per settled row, flushed as it is written."""

    def __init__(self, path: Path, labels: dict[str, str]) -> None:
        self.labels, self.unknown = labels, set()
        self.file = open(path, 'a+b')  # noqa: SIM115  # open, and ours alone, for the whole run
        lock(self.file.fileno(), f'{path} is in use: another run works there; wait for it, or name another root')
        end = self.file.seek(0, os.SEEK_END)
        while end and (self.file.seek(end - 1), self.file.read(1))[1] != b'\n':
            end -= 1
        self.file.truncate(end)  # a torn last line

    def add(self, entry: dict[str, Any]) -> None:
        self.file.write(json.dumps(entry, ensure_ascii=False).encode(errors='replace') + b'\n')
        self.file.flush()

    def settle(self, result: Result) -> None:
        """Write down what became of a row; for a clip, its metadata record."""
        segment = result.segment
        entry = {'id': segment.id, 'status': result.verdict, 'split': segment.split}
        if result.verdict != DONE:
            return self.add({**entry, 'reason': result.reason, 'message': result.message})
        for tag in set(segment.tags) - self.labels.keys() - self.unknown:
            self.unknown.add(tag)
            say(f'{tag}: has no label in class_labels_indices.csv, kept as it is (first in {segment.ytid})')
        named = {'tags': segment.tags, 'labels': [self.labels.get(tag, tag) for tag in segment.tags]}
        row = {'ytid': segment.ytid, 'start': segment.start, 'end': segment.end}
        return self.add({**entry, 'url': segment.url, **named, **row, **result.record})


RECORD = ['id', 'path', 'title', 'url', 'tags', 'labels', 'ytid', 'split', 'start', 'end', 'duration', 'format_id', 'ext']


def merge_metadata(settings: Settings) -> str:
    """Make audioset_metadata.json from the journal, an id and its record a line; says how many there are."""
    latest: dict[str, tuple[bool, int]] = {}  # id -> its entry's number, the last one of this ext before those of others
    for n, entry in enumerate(read_journal(settings.journal)):
        if 'ext' in entry:
            latest[entry['id']] = max(latest.get(entry['id'], (False, 0)), (entry['ext'] == settings.ext, n))
    records = 0

    def lines() -> Iterator[str]:
        nonlocal records
        for n, entry in enumerate(read_journal(settings.journal)):
            if entry['status'] == DONE and latest[entry['id']][1] == n:
                record = json.dumps({key: entry[key] for key in RECORD}, ensure_ascii=False)
                yield f'{"," if records else ""}\n{json.dumps(entry["id"])}: {record}'
                records += 1

    replace_file(settings.metadata, itertools.chain('{', lines(), ['\n}\n']))
    return f'{records} records in {settings.metadata}'


def verify_clips(settings: Settings, journal: Journal) -> None:
    """Look at every clip that the journal names; what is not as recorded becomes a row to fetch again."""
    latest = {entry['id']: entry for entry in read_journal(settings.journal) if entry.get('ext') == settings.ext}
    done, lost = [entry for entry in latest.values() if entry['status'] == DONE], 0
    for entry in tqdm(done, 'verifying', disable=not sys.stderr.isatty()):
        path = settings.root / entry['path']
        if not path.exists() or path.stat().st_size != entry['bytes'] or abs(measure(path) - entry['duration']) > 0.01:
            path.unlink(missing_ok=True)
            journal.add({'id': entry['id'], 'status': LOST, 'ext': settings.ext})
            lost += 1
    say(f'verified {len(done)} clips: {lost} missing or damaged')


# --------------------------------------------------------------------------------------------------------------- run


PLAIN = '{n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]'  # in tqdm's language


class Progress:
    """A bar over all rows of the run on a terminal, a plain line now and then elsewhere; counts by verdict and reason."""

    EVERY = 10  # s between plain lines

    def __init__(self, total: int, before: Counter[str]) -> None:
        self.counts = Counter({(DONE if reason == DONE else GONE, reason): n for reason, n in before.items()})
        self.examples: dict[str, str] = {}
        self.spoke, self.terminal = time.monotonic(), sys.stderr.isatty()
        shape = {'dynamic_ncols': True} if self.terminal else {'bar_format': PLAIN, 'file': open(os.devnull, 'w')}  # noqa: SIM115
        self.bar = tqdm(total=total, initial=before.total(), unit='clip', **shape)

    def count(self, verdict: str) -> int:
        return sum(n for (of, _), n in self.counts.items() if of == verdict)

    def update(self, result: Result) -> None:
        self.counts[result.verdict, result.reason] += 1
        self.examples.setdefault(result.reason, f'{result.segment.ytid}: {result.message}')
        self.bar.set_postfix({verdict: self.count(verdict) for verdict in (DONE, GONE, FAILED)}, refresh=False)
        self.bar.update()
        if not self.terminal and time.monotonic() - self.spoke > self.EVERY:
            self.spoke = time.monotonic()
            say(str(self.bar))

    def table(self, skipped: int) -> str:
        """What became of the rows, by verdict and reason, with one example of each new reason."""
        lines = []
        for verdict in (DONE, GONE, FAILED):
            lines.append(f'{verdict:<16}{self.count(verdict):>9}')
            for (of, reason), n in self.counts.most_common():
                if of == verdict != DONE:
                    lines.append(f'  {reason:<14}{n:>9}  {self.examples.get(reason, "")[:110]}'.rstrip())
        lines.append(f'{"not tried":<16}{self.bar.total - self.counts.total():>9}')
        return '\n'.join([*lines, *([f'{"rows skipped":<16}{skipped:>9}'] if skipped else [])])


class Watch:
    """What results say beyond their rows: whether the cheap request still pays, and whether to stop the run."""

    def __init__(self, settings: Settings) -> None:
        self.cheap, self.misses = True, 0  # misses: clips in a row that only the full extraction brought
        self.failing, self.enough = set(), max(10, 2 * settings.num_processes)  # failing: rows that did, since one did not
        self.stop = ''  # why the run ends early

    def see(self, result: Result) -> None:
        words = f'{result.reason}: {result.message.strip().rpartition(chr(10))[2]}'
        if result.verdict == FAILED and result.reason != 'live':
            self.failing.add(result.segment.ytid)
        elif result.verdict in (DONE, GONE):
            self.failing.clear()
        if result.verdict == DONE:
            self.misses = self.misses + 1 if result.cheap_failed else 0
        if self.cheap and self.misses >= 5:
            self.cheap = False
            say('the cheap request keeps failing where the full extraction succeeds: going on with the full one')
        if result.verdict == THROTTLED:
            self.stop = f'YouTube refuses us ({words}); {REMEDY}'
        elif result.verdict == STOP:
            self.stop = f'{words}; mend that'
        elif len(self.failing) >= self.enough:
            self.stop = f'{len(self.failing)} rows failed one after the other ({words}); check the network, update yt-dlp'


class Queue:
    """Which segment is next: a retry whose pause is over, else a new row."""

    def __init__(self, segments: Iterator[Segment], settings: Settings) -> None:
        self.segments, self.settings = segments, settings
        self.retries: list[tuple[float, int, Segment]] = []  # a heap, by the time at which they are due
        self.order = itertools.count()
        self.exhausted = False

    def next(self) -> Segment | None:
        if self.retries and self.retries[0][0] <= time.monotonic():
            return heapq.heappop(self.retries)[2]
        segment = next(self.segments, None)
        self.exhausted = segment is None
        return segment

    def retry(self, result: Result) -> bool:
        """Take a failed segment back, after a growing, jittered pause; False if there is no use or it was tried enough."""
        tries = result.segment.tries
        if result.verdict != FAILED or result.reason == 'live' or tries >= self.settings.retries:
            return False
        due = time.monotonic() + self.settings.retry_pause * 2**tries * random.uniform(0.75, 1.25)
        again = result.segment._replace(tries=tries + 1, cheap=result.reason != 'media 403')
        heapq.heappush(self.retries, (due, next(self.order), again))
        return True


@contextlib.contextmanager
def no_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back while processes start: they inherit that, and so never print a traceback of their own."""
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
        context.set_forkserver_preload(['yt_dlp.extractor.youtube', 'yt_dlp.downloader.external', 'mutagen.mp4', 'tqdm'])
    with no_interrupts():
        pool = context.Pool(processes, start_worker, args, maxtasksperchild=1000)
    try:
        yield pool
    finally:
        end = threading.Thread(target=pool.terminate, daemon=True)  # which waits for ever if a worker was killed at a bad moment
        end.start()
        end.join(2)
        for process in multiprocessing.active_children():
            process.kill()


def download(settings: Settings, segments: Iterator[Segment], args: tuple[Any, ...], settle: Callable[[Result], None]) -> str:
    """Fan the segments out and settle what comes back; returns why it stopped early, '' if it did not."""
    results: queue.SimpleQueue[Any] = queue.SimpleQueue()
    todo, watch, flying = Queue(segments, settings), Watch(settings), {}
    patience = 2 * settings.clip_timeout + 20 * settings.timeout  # s; what takes longer has lost its worker
    with open_pool(settings.num_processes, args) as pool:
        while True:
            while not watch.stop and len(flying) < settings.num_processes and (segment := todo.next()):
                flying[segment.ytid] = segment, time.monotonic() + patience
                segment = segment._replace(cheap=segment.cheap and watch.cheap)
                pool.apply_async(fetch, (segment,), callback=results.put, error_callback=results.put)
            if not flying and (watch.stop or not todo.retries and todo.exhausted):
                return watch.stop
            result = next_result(results, flying)
            if result and flying.pop(result.segment.ytid, None):
                watch.see(result)
                if result.verdict in (DONE, GONE) or not (watch.stop or todo.retry(result)):
                    settle(result)


def next_result(results: queue.SimpleQueue[Any], flying: dict[str, tuple[Segment, float]]) -> Result | None:
    """What comes back within a moment; a segment that is overdue counts as failed."""
    try:
        result = results.get(timeout=0.2)
    except queue.Empty:
        overdue = (segment for segment, due in flying.values() if due < time.monotonic())
        return next((Result(segment, FAILED, 'lost', 'its worker never answered') for segment in overdue), None)
    if isinstance(result, BaseException):
        raise result
    return result


# -------------------------------------------------------------------------------------------------------------- main


NONE = type(None)
KIND_OF = {int: 'int', float: 'float', str: 'str', bool: 'bool', list: 'list[str]', dict: 'dict', NONE: 'int | None'}
KINDS = {**{kind: (of,) for of, kind in KIND_OF.items()}, 'int | None': (int, NONE), 'float': (int, float)}


def number_or_json(text: str) -> Any:
    return json.loads('null' if text.lower() == 'none' else text)


def require(holds: Any, message: str) -> None:
    if not holds:
        raise Oops(message)


def read_flag(kind: str) -> dict[str, Any]:
    """How argparse is to read the flag of a setting of this kind."""
    if kind == 'bool':
        return {'action': argparse.BooleanOptionalAction}
    if kind == 'list[str]':
        return {'nargs': '*', 'metavar': 'NAME'}
    return {'type': str if kind == 'str' else number_or_json, 'metavar': kind.split()[0].upper()}


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Oops(f'{message} (see --help)')


def read_settings(argv: list[str] | None) -> Settings:
    """The globals of the settings block, each with a flag made from its own line of source, and the flags over them."""
    block = Path(__file__).read_text(encoding='utf-8').partition('- settings\n')[2].partition('\n# ---')[0]
    described = re.findall(r'^(\w+)(?:: *([^=\n]+?))? *=[^#\n]*(?:# *(.*))?$', block, re.M)
    kinds = {name: kind if kind in KINDS else KIND_OF.get(type(globals()[name]), 'str') for name, kind, _ in described}
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    for name, _, about in described:
        flag, default = f'--{name.replace("_", "-")}', globals()[name]
        parser.add_argument(flag, default=default, help=f'{about} ({default!r})'.replace('%', '%%'), **read_flag(kinds[name]))
    settings = parser.parse_args(argv)
    for name, kind in kinds.items():
        require(type(getattr(settings, name)) in KINDS[kind], f'{name} = {getattr(settings, name)!r}: use {kind}')
    check_settings(settings)
    return settings


def check_settings(s: Settings) -> None:
    """Refuse values and combinations that cannot work."""
    rates = RATES.get(s.ext, range(1, 384_001))
    reasons = {TOO_SHORT, *(reason for reason, verdict, *_ in VERDICTS if verdict == GONE)}
    require(s.ext in ENCODE, f'ext = {s.ext!r}: use one of {", ".join(ENCODE)}')
    require(s.splits, 'splits is empty: name at least one list')
    for split in s.splits:
        require(re.fullmatch(r'\w[\w.-]*', str(split)), f'splits: {split!r} is no name (put spaces between names)')
    require(s.sample_rate is None or s.sample_rate in rates, f'sample_rate = {s.sample_rate}: {s.ext} takes {rates} Hz')
    require(s.channels in (None, 1, 2), f'channels = {s.channels}: use 1 or 2')
    require(s.limit is None or s.limit > 0, f'limit = {s.limit}: use a number above 0, or None')
    for name in ('num_processes', 'max_height', 'timeout', 'clip_timeout'):
        require(0 < getattr(s, name) < math.inf, f'{name} = {getattr(s, name)}: use a number above 0')
    for name in ('retries', 'retry_pause'):
        require(0 <= getattr(s, name) < math.inf, f'{name} = {getattr(s, name)}: use a number from 0')
    require(s.ext == 'mp4' or not s.exact_frames, f'exact_frames is for mp4, not for {s.ext}')
    require(set(s.again) <= reasons, f'again = {s.again}: use reasons of gone rows: {", ".join(sorted(reasons))}')
    require(not s.ffmpeg or shutil.which(s.ffmpeg), f'ffmpeg = {s.ffmpeg!r}: no such program')
    require(not (s.verify and s.merge), 'verify and merge: one at a time')


def check_trust() -> None:
    """One proxy and one CA file for all: ffmpeg reads http_proxy only, and YouTube binds media to the address that asked."""
    proxies = urllib.request.getproxies()
    if proxy := proxies.get('https') or proxies.get('all') or proxies.get('http'):
        proxy = proxy if '://' in proxy else f'http://{proxy}'
        kind = proxy.partition('://')[0].lower()
        require(kind == 'http', f'the proxy in the environment is of the kind {kind} (SOCKS or TLS), which ffmpeg cannot use')
        os.environ['https_proxy'] = os.environ['http_proxy'] = proxy
    if (bundle := os.environ.get('SSL_CERT_FILE')) and not os.path.isfile(bundle):
        raise Oops(f'SSL_CERT_FILE = {bundle}: no such file')


def open_root(settings: Settings) -> None:
    """Add the paths to the settings; make the folders where they are missing; Oops if they cannot be written."""
    root = settings.root = Path(settings.root or Path(__file__).parent).expanduser().resolve()
    settings.csvs, settings.wavs, settings.temps = root / 'csvs', root / 'wavs', root / 'temps'
    settings.journal, settings.metadata = settings.wavs / 'journal.jsonl', root / 'audioset_metadata.json'
    try:
        for folder in (settings.csvs, settings.wavs, settings.temps):
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise Oops(f'root = {root}: cannot be written ({error.strerror})') from None


def read_cookies(path: Path, wanted: bool) -> str:
    """The cookies of a Netscape file as yt-dlp takes them, '' if there are none; Oops for a file of another kind."""
    require(not path.exists() or path.is_file(), f'{path}: not a file')
    require(path.exists() or not wanted, f'{path}: no such file')
    text = path.read_text(encoding='utf-8-sig', errors='replace') if path.exists() else ''
    rows = [line.split('\t') for line in text.splitlines() if line.startswith('#HttpOnly_') or line[:1] not in ('', '#')]
    hint = 'not a Netscape cookie file (7 fields with tabs between); export it as README says, or delete it'
    require(all(len(row) == 7 for row in rows), f'{path}: {hint}')
    for row in rows:
        row[4] = row[4] if row[4].isdecimal() else '0'  # when it expires; yt-dlp prints the cookies whose date it cannot read
    return '\n'.join(['# Netscape HTTP Cookie File', *map('\t'.join, rows), '']) if rows else ''


def find_ffmpeg(settings: Settings) -> set[str]:
    """Settle which ffmpeg it is; returns which of the wanted http flags it has."""
    import imageio_ffmpeg

    try:
        found = settings.ffmpeg = shutil.which(settings.ffmpeg) if settings.ffmpeg else imageio_ffmpeg.get_ffmpeg_exe()
        asked = [found, '-hide_banner', '-h', 'protocol=http']
        told = subprocess.run(asked, capture_output=True, text=True, errors='replace').stdout
    except (OSError, RuntimeError) as error:
        raise Oops(f'ffmpeg: {error}; name one with the ffmpeg setting') from None
    require('-user_agent' in told, f'ffmpeg = {found!r}: is no ffmpeg that can fetch')
    wanted = {'request_size', 'short_seek_size'}
    has = {flag for flag in wanted if f'-{flag} ' in told}
    if has != wanted:
        say(f'{found} is too old for -{" and -".join(sorted(wanted - has))}: going on without, with more bytes per clip')
    return has


def survey(settings: Settings, settled: dict[str, str]) -> tuple[int, Counter[str], int]:
    """Read the lists once: how many rows, how many settled by reason, how many skipped (each said, up to a point)."""
    total, before, skipped = 0, Counter(), itertools.count(1)

    def complain(message: str) -> None:
        if (n := next(skipped)) <= 50:
            say(message if n < 50 else 'more rows are skipped; the table at the end counts them')

    for segment in read_segments(settings, complain):
        total += 1
        if reason := settled.get(segment.id):
            before[reason] += 1
    return total, before, next(skipped) - 1


def run(settings: Settings) -> int:
    """The job: survey, download what is not settled, merge. Returns the exit status."""
    for name in ['class_labels_indices', *(f'{split}_segments' for split in settings.splits)]:
        provide(settings.csvs / f'{name}.csv')
    cookies = settings.root / Path(settings.cookie_path).expanduser()
    settings.cookies = read_cookies(cookies, wanted=settings.cookie_path != 'cookies.txt')
    journal = Journal(settings.journal, read_labels(settings.csvs / 'class_labels_indices.csv'))
    if settings.verify:
        verify_clips(settings, journal)
    settled = read_settled(settings)
    total, before, skipped = survey(settings, settled)
    require(total, f'{", ".join(settings.splits)}: not one usable row; a list of AudioSet that is deleted is fetched anew')
    todo = total - before.total()
    counts = f'{total} rows, {before.total()} settled ({before[DONE]} done), {todo} to do'
    say(f'{", ".join(settings.splits)}: {counts}, {settings.ext} in {settings.wavs}')
    progress = Progress(total, before)
    with progress.bar:
        stop = fetch_rows(settings, settled, journal, progress) if todo else ''
    say(f'{progress.table(skipped)}\n{merge_metadata(settings)}')
    if stop:
        print(f'stopped: {stop}; then run the same command again', file=sys.stderr)
    return 0 if progress.count(DONE) + progress.count(GONE) == total else 1


def fetch_rows(settings: Settings, settled: dict[str, str], journal: Journal, progress: Progress) -> str:
    """Download the rows that are not settled, in a scratch folder of this run; returns why it stopped early, or ''."""

    def settle(result: Result) -> None:
        if result.reason == 'unexpected' and not progress.counts[FAILED, 'unexpected']:
            say(f'unexpected, please report it:\n{result.message}')
        journal.settle(result)
        progress.update(result)

    http_flags = find_ffmpeg(settings)
    segments = (s for s in read_segments(settings, lambda _: None) if s.id not in settled)
    for left in [*settings.temps.iterdir(), settings.wavs / '.parts']:  # of a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix='run-', dir=settings.temps, ignore_cleanup_errors=True) as scratch:
        return download(settings, segments, (settings, Path(scratch), http_flags), settle)


def interrupted(settings: Settings) -> str:
    """Merge what is there, unless the journal is so long that Ctrl-C would seem to hang."""
    if settings.journal.exists() and settings.journal.stat().st_size < 50e6:  # bytes; a second or two
        return merge_metadata(settings)
    return 'python download.py --merge makes the metadata of what is there'


def main(argv: list[str] | None = None) -> int:
    """0: every row is settled; 1: run it again; 2: settings or input are wrong; 130: interrupted."""
    for name in {'SIGTERM', 'SIGHUP'} & set(dir(signal)):  # a scheduler's or a closing terminal's request is a Ctrl-C
        if signal.getsignal(getattr(signal, name)) == signal.SIG_DFL:
            signal.signal(getattr(signal, name), signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors='replace')  # a title must not end the run where the terminal cannot show it
    try:
        settings = read_settings(argv)
        check_trust()
        open_root(settings)
        try:
            if not settings.merge:
                return run(settings)
            require(settings.journal.exists(), f'{settings.journal} is not there: nothing to merge')
            print(merge_metadata(settings))
            return 0
        except KeyboardInterrupt:
            print(f'\ninterrupted; {interrupted(settings)}; the same command goes on', file=sys.stderr)
    except Oops as error:
        print(f'download.py: {error}', file=sys.stderr)
        return 2
    except OSError as error:  # the journal or the metadata cannot be written
        print(f'download.py: {error}; mend that, then run the same command again', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 130


if __name__ == '__main__':
    raise SystemExit(main())
