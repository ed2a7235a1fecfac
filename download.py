"""Download AudioSet: fetch only the wanted seconds of each YouTube video, many at a time, and remember what came of it.

    python download.py                          # every row that is not settled yet; run it again to resume
    python download.py --limit 20               # try it out
    python download.py --splits eval --ext wav --sample-rate 16000 --channels 1
    python download.py --labels Dog --dry-run   # how many rows that leaves; --report: what became of them, by class
    python download.py --help                   # every setting below is also a flag

It leaves the clips in `wavs/` and their url, path, title, tags and labels in `audioset_metadata.json`:

    csvs/     lists of segments and labels, AudioSet's fetched when they are not there
    wavs/     id_<YTID>.<ext>, always whole, and the ledger, <ext>.sqlite3, which remembers everything
    temps/    scratch; safe to delete when nothing runs
"""
# /// script
# requires-python = ">=3.10"
# dependencies = ["yt-dlp[default,deno]", "tqdm", "imageio-ffmpeg", "pebble", "filelock"]
# ///

from __future__ import annotations

import argparse
import ast
import bisect
import codecs
import concurrent.futures
import contextlib
import csv
import difflib
import errno
import hashlib
import http.client
import importlib.util
import io
import itertools
import json
import math
import multiprocessing
import multiprocessing.connection
import os
import platform
import random
import re
import shutil
import signal
import sqlite3
import ssl
import string
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import tokenize
import traceback
import urllib.parse
import urllib.request
import zlib
from array import array
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import filelock
import pebble
from tqdm import tqdm

# ---------------------------------------------------------------------------------------------------------- settings
# what to fetch
splits: list[str] = [
    'unbalanced_train'
]  # eval, balanced_train, unbalanced_train, eval_strong, train_strong, csvs/<name>
labels: list[str] = []  # only rows with one of these classes, by name or MID, e.g. Dog /m/01yrx; none: all rows
exclude: list[str] = []  # no rows with one of these classes
descendants: bool = True  # a class brings those below it in AudioSet's ontology, Animal also Dog
per_label: int | None = (
    None  # so many rows of a class in each list, rare classes first, more where they accompany; None: all
)
seed: int = 0  # of the choice that per_label makes
limit: int | None = None  # only the first so many rows (of which a shard takes its share); None: all
shard: str = '0/1'  # this machine's share of the rows: 3/8 is the fourth of eight
again: list[str] = []  # reasons of gone rows to ask for once more: age (now with cookies), country (now elsewhere)
# what to make of it
ext: str = 'm4a'  # audio: m4a (the source's own bits), wav, flac, opus, mp3; video: mp4
sample_rate: int | None = None  # Hz; None: the source's
channels: int | None = None  # 1: mono, 2: stereo; None: the source's
pad: bool = False  # audio: lengthen short clips with silence to what their row asks for, those of AudioSet to 10 s
preset: str = ''  # panns or ast: ext, sample_rate, channels and name as these take them; flags beside it win
max_height: int = 360  # pixels; the tallest video to take for mp4
exact_frames: bool = False  # mp4: cut at the very frame by re-encoding (slow), not with an edit list
name: str = 'id_{ytid}'  # of a clip, from ytid, split, start, end, index (of the row in its list), part (index // 5000)
# how
engine: str = 'multiprocessing'  # ray: the same on each node of a Ray cluster
num_processes: int | None = None  # clips in flight, which mostly wait for the network; None: 4 per core, at most 32
retries: int = 3  # how often to try a row again in this run when something passing went wrong
retry_pause: float = 4  # s before the first retry, doubled each time
timeout: float = 15  # s without a byte until a connection counts as dead
clip_timeout: float = 120  # s until a clip is given up, whatever it waits for
# when YouTube or the network says no
pause: float = 60  # s until one row tries again, doubled each time that one fails
longest_pause: float = 3600  # s beyond which pauses do not grow
give_up_after: float = 0  # s of hearing nothing but no until the run ends; 0: never
per_hour: int | None = None  # rows to start in an hour on each route; None: as many as it takes
proxies: list[str] = []  # routes to use side by side, http://host:port; direct: this machine's own address
# with what
cookie_path: str = 'cookies.txt'  # your cookies in Netscape format, used if the file exists, and again when it changes
client: str = ''  # YouTube client for the single cheap request; empty: what yt-dlp uses without JavaScript
ffmpeg: str = ''  # another ffmpeg to use; empty: the one that comes with imageio-ffmpeg
ydl_opts: dict = {}  # more options for yt-dlp, on the command line as JSON
root: str = ''  # folder with csvs, wavs, temps, cookies.txt and the metadata; empty: where this script is
# instead of a plain run
dry_run: bool = False  # only say how many rows there are, how many are settled and how many to do
report: str | None = None  # only say which classes the clips cover; with the name of a file, as CSV there
verify: bool = False  # check every clip that the ledger names and fetch again what is missing or damaged
merge: bool = False  # only make audioset_metadata.json, from the ledgers of all shards

# ------------------------------------------------------------------------------------------------------------- types
CORPUS = 'https://storage.googleapis.com/us_audioset/youtube_corpus/'
ONTOLOGY = 'https://raw.githubusercontent.com/audioset/ontology/master/ontology.json'
WEAK, STRONG = ('eval', 'balanced_train', 'unbalanced_train'), ('eval_strong', 'train_strong')  # AudioSet's own lists
DAY, LENGTH = 86_400, 10.0  # s; LENGTH: of a clip whose list names no end, as AudioSet's
PRESETS = {
    'panns': {'ext': 'wav', 'sample_rate': 32_000, 'channels': 1, 'name': '{split}_segments/Y{ytid}'},
    'ast': {'ext': 'wav', 'sample_rate': 16_000, 'channels': 1},
}
IN_MP4 = ['-movflags', '+faststart', '-f', 'mp4']
ENCODE = {  # ext -> how ffmpeg makes its sound
    'm4a': ['-c:a', 'aac', '-b:a', '128k', *IN_MP4],
    'wav': ['-c:a', 'pcm_s16le', '-f', 'wav'],
    'flac': [
        '-c:a',
        'flac',
        '-sample_fmt',
        's16',
        '-frame_size',
        '4096',
        '-f',
        'flac',
    ],  # else the first frame's: may be 8
    'opus': ['-c:a', 'libopus', '-b:a', '96k', '-f', 'opus'],
    'mp3': ['-c:a', 'libmp3lame', '-q:a', '2', '-f', 'mp3'],
}
ENCODE['mp4'] = ENCODE['m4a']
AAC_RATES = [7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000]  # Hz
RATES = {'m4a': AAC_RATES, 'mp4': AAC_RATES, 'opus': [8000, 12000, 16000, 24000, 48000], 'mp3': AAC_RATES[1:10]}

DONE, GONE, LATER, FAILED, DOUBT, THROTTLED, STOP = 'done', 'gone', 'later', 'failed', 'doubt', 'throttled', 'stop'
ANSWERS = (DONE, GONE, LATER)  # of YouTube on a video
VERDICTS = [  # reason, verdict, believed even from the cheap request, words of YouTube, yt-dlp or us; the first counts
    ('cookies', THROTTLED, True, r'cookies are no longer valid|failed to load cookies'),
    ('system', STOP, True, r'no space left|quota exceeded|read-only file system|file too large|permission denied'),
    (
        'system',
        STOP,
        True,
        r'ffmpeg exited with code (228|226|134)',
    ),  # -ENOSPC, -EROFS, -EDQUOT: no room even to say so
    ('captcha', THROTTLED, False, r'captcha'),
    ('bot check', THROTTLED, False, r'not a bot'),
    ('rate limit', THROTTLED, False, r'rate-limited|try again later|http error 429|429 too many'),
    ('media 403', DOUBT, True, r'^(ffmpeg|download).*(403 forbidden|http error 403)'),
    ('wrong length', DOUBT, True, r'^ffmpeg made [\d.]+ s instead'),
    ('too large', LATER, True, r'^download: more than'),
    ('media', DOUBT, True, r'^download: '),
    (
        'media',
        DOUBT,
        True,
        r'^ffmpeg.*(timed out|reset|refused|5xx|50\d|i/o error|input/output|end of file|resolve|unreachable)',
    ),
    ('media', FAILED, True, r'^ffmpeg'),
    ('timeout', DOUBT, True, r'^not done within'),
    ('too short', GONE, True, r'^the video ends'),
    ('damaged', LATER, False, r'^every format with sound ends'),
    ('dubbed', LATER, False, r'^the original sound has no address'),
    ('no sound', GONE, False, r'^the video has no sound'),
    ('no format', FAILED, False, r'^no format'),
    ('blocked', THROTTLED, False, r'likely being blocked|http error 403'),
    ('age', GONE, False, r'confirm your age|age-restricted'),
    ('members', GONE, True, r'members-only|join this channel|premium|requires payment'),
    ('private', GONE, True, r'private video|video is private'),
    ('terminated', GONE, True, r'account .*terminated'),
    ('copyright', GONE, True, r'copyright'),
    ('country', GONE, True, r'in your country'),
    ('removed', GONE, True, r'has been removed'),
    ('terminated', GONE, True, r'account has been (closed|suspended)'),
    (
        'blocked',
        THROTTLED,
        False,
        r'administrator|restricted mode|workspace account|your (account|network) (is|has been) (restrict|block)',
    ),
    ('drm', GONE, False, r'drm protected'),
    ('live', LATER, True, r'live event|premieres in|not currently live'),
    ('no format', FAILED, False, r'requested format|no video formats'),
    (
        'network',
        DOUBT,
        True,
        r'failed to parse json|timed out|connection|reset|resol|unreachable|refused|http error 5|ssl|proxy',
    ),
    (
        'unavailable',
        GONE,
        False,
        r"video (is )?(un|not |no longer )available|isn't available|recording is not|does not exist",
    ),
    ('other', FAILED, False, r''),
]
VAGUE = ('other', 'no format', 'unexpected')  # reasons that say nothing
TOO_SHORT = 0.1  # s of a clip that is none
LARGEST = 1 << 29  # bytes of a video that has to be downloaded whole
DIED = 'worker died'  # the reason of a row whose process ended
REMEDY = 'it goes on by itself; cookies.txt, proxies or a PO-token provider may help (see README)'

Settings = (
    argparse.Namespace
)  # the globals, the flags over them and the paths, as one value that travels to the workers


class UsageError(Exception):
    """What the user can mend; its text is the one line that says what, where and how."""


def require(holds: Any, message: str) -> None:
    if not holds:
        raise UsageError(message)


class Segment(NamedTuple):
    """A row to fetch, and how."""

    ytid: str
    start: float  # s
    end: float  # s
    tags: tuple[str, ...]
    split: str
    index: int = 0  # of the row in its list
    tries: int = 0  # that failed
    deaths: int = 0  # of workers that had it
    refusals: int = 0  # that it was the first to meet on a route
    cheap: bool = True  # ask with the single cheap request first
    nowhere: frozenset[str] = frozenset()  # routes in whose country it is not shown
    unproven: bool = False  # it was said to be gone, without proof
    mark: str = ''  # its start in ms, where its video has other clips in other lists
    clip: int = 0  # its number in the ledger

    @property
    def id(self) -> str:
        """Its name in the ledger and the metadata."""
        return f'id_{self.ytid}{self.mark}'

    @property
    def nominal(self) -> float:
        """Length in s that it is padded to."""
        return LENGTH if self.split in WEAK + STRONG else self.end - self.start

    @property
    def url(self) -> str:
        return f'https://www.youtube.com/watch?v={self.ytid}'


class Task(NamedTuple):
    """What a worker is asked for: a segment, and the way to it."""

    segment: Segment
    route: str = ''  # its name
    cheap: bool = True
    probe: bool = False  # it is to tell whether YouTube answers
    keep: bool = True  # False: a clip that is there already, fetched for what the fetching tells
    at: float = 0.0  # when it started, unix s
    proxy: str = ''  # the address of the route, if it is not this machine's own
    cookies: str = ''  # the content of a Netscape file


class Result(NamedTuple):
    """What became of a segment. `record` holds the fields that only the fetching could tell."""

    segment: Segment
    verdict: str
    reason: str
    message: str = ''
    record: dict[str, Any] = {}
    made: str = ''  # where the clip waits for its place
    cheap_failed: bool = False  # the full extraction brought what the cheap request did not

    @property
    def status(self) -> str:
        """Its word in the ledger and in the table: done, gone or failed."""
        return self.verdict if self.verdict in (DONE, GONE) else FAILED

    @property
    def words(self) -> str:
        return f'{self.reason}: {self.message.strip().rpartition(chr(10))[2]}'  # a traceback's last line says it


class Refused(Exception):
    """YouTube or ffmpeg said no: their words, and what they mean."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        plain = ' '.join(re.split(r' Use --cookies| It is recommended', words)[0].split())  # the rest advises others
        self.words = hide(re.sub(r'\?\S{40,}', '?…', plain))[
            :300
        ]  # the address of a medium is long and holds the user's own
        self.reason, self.verdict, self.sure = judge(words)


def hide(text: str) -> str:
    """Text without the logins of the addresses in it."""
    return re.sub(r'://\S*@', '://…@', text)


def judge(words: str) -> tuple[str, str, bool]:
    """Reason, verdict and whether the cheap request may be believed: the one place that interprets refusals."""
    plain = ' '.join(words.lower().replace('’', "'").split())
    return next((reason, verdict, sure) for reason, verdict, sure, pattern in VERDICTS if re.search(pattern, plain))


# -------------------------------------------------------------------------------------------------------------- read


def say(message: str) -> None:
    """A line for the user, above the bar if there is one; to nobody once nobody listens."""
    try:
        with tqdm.external_write_mode():
            print(message, flush=True)
    except BrokenPipeError:  # `| head` has seen enough, but the run goes on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


COLUMNS = {  # what a column tells -> names that it goes by, in lower case
    'clip': ('segment_id',),  # of AudioSet's strong labels: YTID_<start in ms>; the times beside it are an event's
    'ytid': ('ytid', 'youtube_id', 'video_id', 'yt_id'),
    'start': ('start', 'start_time', 'start_seconds', 'start_time_seconds'),
    'end': ('end', 'end_time', 'end_seconds', 'end_time_seconds'),
    'duration': ('duration', 'duration_seconds'),
    'tags': ('tags', 'tag', 'mids', 'mid', 'positive_labels'),
    'label': ('label', 'labels', 'class', 'display_name'),
    'caption': ('caption', 'captions'),
    'subset': ('split', 'subset'),
}
EXPECTED = (
    'expected: rows `YTID, start, end, "tag,tag"` as AudioSet\'s, rows `YTID,start,label,subset` as VGGSound\'s, or a '
    'header that names ytid (or youtube_id, video_id), start (or start_time) and, if there are, end or duration, tags, '
    'label, caption'
)


def seconds(text: str) -> float:
    try:
        if math.isfinite(number := float(text)):
            return number
        raise ValueError
    except ValueError:
        raise ValueError(f'{text!r} is no number of seconds') from None


class Row(NamedTuple):
    """What a line of a list asks for."""

    ytid: str
    start: int  # ms
    end: int | None  # ms; None: its list names none, and it is as long as AudioSet's clip
    tags: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()  # classes without a MID
    more: dict[str, Any] = {}  # events, captions, subset


class Form(NamedTuple):
    """How a list is written: the columns, what stands between them, and whether the first line names them."""

    columns: dict[str, int]
    separator: str = ','
    headed: bool = False

    def cells(self, line: bytes) -> dict[str, str]:
        """The cells of a line by what they tell; ValueError if there are too few."""
        text = line.decode(errors='replace')
        fields = next(csv.reader([text], delimiter=self.separator, skipinitialspace=True, strict=self.headed))
        needed = max(self.columns.values()) + 1
        if len(fields) < needed:
            raise ValueError(f'{len(fields)} of {needed} fields')
        if self.columns is AUDIOSET.columns:
            fields[3:] = [','.join(fields[3:])]  # the quotes around the tags may be missing
        return {tells: fields[index].strip() for tells, index in self.columns.items()}

    def seconds(self, cells: dict[str, str]) -> tuple[str, int, int | None]:
        """Video id, start and end (ms) of a line; ValueError says what is wrong with them."""
        ytid, _, start = cells['clip'].rpartition('_') if 'clip' in cells else (cells['ytid'], '', cells['start'])
        if not re.fullmatch(r'[A-Za-z0-9_-]{11}', ytid):
            raise ValueError(f'{ytid!r} is not a video id')
        begin = round(seconds(start) * (1 if 'clip' in cells else 1000))
        known = 'clip' not in cells and (cells.get('end') or cells.get('duration'))
        length = seconds(cells.get('duration') or str(LENGTH)) * 1000
        end = round(seconds(cells['end']) * 1000 if known and cells.get('end') else begin + length)
        if not 0 <= begin < end < DAY * 1000:
            raise ValueError(f'no clip from {start} to {cells.get("end") or end / 1000} s')
        return ytid, begin, end if known else None

    def event(self, cells: dict[str, str], names: dict[str, str]) -> dict[str, Any]:
        """What is heard when (s within the clip), of a line of strong labels."""
        begin, end, tag = seconds(cells['start']), seconds(cells['end']), cells['label']
        if not 0 <= begin <= end < math.inf:
            raise ValueError(f'no event from {begin} to {end} s')
        return {'start': begin, 'end': end, 'tag': tag, 'label': names.get(tag, tag)}

    def read(self, line: bytes, names: dict[str, str]) -> Row:
        """A line; ValueError says what is wrong with it. `names` are those of strong labels, by MID."""
        if self.columns is AUDIOSET.columns and (plain := PLAIN_ROW.fullmatch(line)):
            ytid, start, end, tags = plain.groups()
            if (begin := round(float(start) * 1000)) < (until := round(float(end) * 1000)) < DAY * 1000:
                return Row(ytid.decode(), begin, until, distinct(tags.decode().split(',')))
        cells = self.cells(line)
        clip = self.seconds(cells)
        if 'clip' in cells:
            return Row(*clip, (cells['label'],), more={'events': [self.event(cells, names)]})
        label = cells.get('label', '')
        tags = distinct(
            tag.strip() for tag in re.split('[,;|]', f'{cells.get("tags", "")},{label if label[:1] == "/" else ""}')
        )
        more = {'captions': distinct([cells.get('caption', '')]), 'subset': cells.get('subset')}
        labels = distinct([label if label[:1] != '/' else ''])
        return Row(*clip, tags, labels, {name: value for name, value in more.items() if value})


AUDIOSET = Form({'ytid': 0, 'start': 1, 'end': 2, 'tags': 3})
VGGSOUND = Form({'ytid': 0, 'start': 1, 'label': 2, 'subset': 3})
PLAIN_ROW = re.compile(rb'([\w-]{11}), (\d{1,9}\.\d{1,9}), (\d{1,9}\.\d{1,9}), "([\w/,-]{0,9999})"\s*')  # as published


def is_number(text: str) -> bool:
    return bool(re.fullmatch(r'\s*\d+(\.\d*)?\s*', text))


def distinct(found: Iterable[str]) -> tuple[str, ...]:
    """The same without what is empty or repeated."""
    return tuple(text for text in dict.fromkeys(found) if text)


def recognise(path: Path) -> Form:
    """The form of a list, by its first line; UsageError if it has none of ours."""
    line = next((line for _, line, _ in read_lines(path)), b'').decode(errors='replace')
    separator = '\t' if '\t' in line else ','
    cells = []
    with contextlib.suppress(csv.Error):
        cells = next(csv.reader([line], delimiter=separator, skipinitialspace=True))
    heads = [cell.strip().lower().replace(' ', '_') for cell in cells]
    columns = {tells: heads.index(name) for tells, names in COLUMNS.items() for name in names[::-1] if name in heads}
    if columns.keys() == {'clip', 'start', 'end', 'label'}:
        return Form(columns, separator, headed=True)
    columns.pop('clip', None)  # a number of somebody's own
    if {'ytid', 'start'} <= columns.keys():
        return Form(columns, separator, headed=True)
    if len(cells) == 4 and is_number(cells[1]) and not is_number(cells[2]) and not path.name.endswith('_segments.csv'):
        return VGGSOUND._replace(separator=separator)
    if separator == '\t' and len(cells) > 3 and is_number(cells[1]) and is_number(cells[2]):
        return AUDIOSET._replace(separator=separator)
    if path.name.endswith('_segments.csv') or (len(cells) > 3 and is_number(cells[1]) and is_number(cells[2])):
        return AUDIOSET
    raise UsageError(f'{path}: its first line {textwrap.shorten(line, 80)!r} is not understood; {EXPECTED}')


def read_lines(path: Path, headed: bool = False, at: int = 0, lines: int = 0) -> Iterator[tuple[int, bytes, int]]:
    """The lines of a list that should be rows, with their numbers and where they end (bytes), from some place on;
    each by itself: a stray quote costs its own row only. Those that begin with # are comments; after a header, they
    may be rows."""
    with open(path, 'rb') as file:
        at = at or (len(codecs.BOM_UTF8) if file.read(3) == codecs.BOM_UTF8 else 0)
        file.seek(at)
        comments = True
        for number, line in enumerate(file, lines + 1):
            at += len(line)
            if not (comments and line[0] == ord('#')) and not line.isspace():
                yield number, line, at
                comments = not headed


def read_labels(path: Path) -> dict[str, str]:
    """Tag (MID) -> label (display name), as published."""
    with open(path, encoding='utf-8-sig', newline='') as lines:
        rows = list(csv.DictReader(lines))
    if not rows or not {'mid', 'display_name'} <= rows[0].keys():
        raise UsageError(
            f'{path}: not the list of labels, whose header names mid and display_name; delete it to fetch it anew'
        )
    return {row['mid']: row['display_name'] for row in rows}


def read_names(path: Path) -> dict[str, str]:
    """Tag -> label of the strong labels: two columns without a header."""
    with open(path, encoding='utf-8-sig') as lines:
        rows = [line.rstrip('\n').split('\t') for line in lines if line.strip()]
    require(
        rows and all(len(row) == 2 for row in rows),
        f'{path}: not the names of strong labels; delete it to fetch it anew',
    )
    return dict(rows)


def read_ontology(path: Path) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Names and children of the classes of AudioSet's ontology, by their MIDs."""
    try:
        nodes = json.loads(path.read_text(encoding='utf-8-sig'))
        return {node['id']: str(node['name']) for node in nodes}, {
            node['id']: list(node['child_ids']) for node in nodes
        }
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"{path}: not AudioSet's ontology; delete it to fetch it anew") from None


def rank_of(split: str) -> int:
    """AudioSet's lists come first: they name the clips that others share."""
    return (WEAK + STRONG).index(split) if split in WEAK + STRONG else 9


def list_path(settings: Settings, split: str) -> Path:
    """Where a list is, or belongs."""
    names = [f'audioset_{split}.tsv'] if split in STRONG else [f'{split}_segments.csv', f'{split}.csv', f'{split}.tsv']
    paths = [settings.csvs / name for name in names]
    return next((path for path in paths if path.exists()), paths[0])


def find_classes(names: list[str], labels: dict[str, str], below: dict[str, list[str]], known: set[str]) -> set[str]:
    """The MIDs, and the names in lower case, of the classes that are meant and of those below them; UsageError with
    the nearest."""
    tags = defaultdict[str, list[str]](list, {name: [] for name in known})  # of the lists' own classes; by name
    for tag, label in labels.items():
        tags[label.casefold()].append(tag)
    found, todo = set[str](), list[str]()
    for name in names:
        if name not in labels and name.casefold() not in tags:
            plain = {label.casefold(): label for label in labels.values()}
            near = [repr(plain.get(one, one)) for one in difflib.get_close_matches(name.casefold(), tags, 3, 0.5)]
            raise UsageError(
                f'{name!r} is no class of these lists{"; did you mean " if near else ""}{" or ".join(near)}'
            )
        todo += [name] if name in labels else tags[name.casefold()]
        found |= {name.casefold()} - labels.keys()
    while todo:
        if (tag := todo.pop()) not in found:
            found |= {tag, labels.get(tag, tag).casefold()}
            todo += below.get(tag, [])
    return found


class Choice(NamedTuple):
    """Which rows are wanted, by their classes."""

    labels: set[str]  # one of these; empty: any
    exclude: set[str]
    per_label: int | None
    seed: int

    def takes(self, classes: Iterable[str]) -> bool:
        plain = [name if name[:1] == '/' else name.casefold() for name in classes]
        return (not self.labels or not self.labels.isdisjoint(plain)) and self.exclude.isdisjoint(plain)

    def pick(self, classes: Iterable[tuple[str, ...]]) -> bytearray:
        """For each row 1 if it is taken: class by class, rare ones first, rows that take others beyond their number
        last."""
        same: dict[tuple, tuple] = {}
        rows = [same.setdefault(found, found) if self.takes(found) else None for found in classes]
        picked = bytearray(found == () for found in rows)  # what has no class is nobody's share
        rows = [found or () for found in rows]
        members = defaultdict[str, array](lambda: array('L'))  # class -> indexes of its rows
        for index, found in enumerate(rows):
            for name in found:
                if not self.labels or self.takes([name]):
                    members[name].append(index)
        count = Counter[str]()
        for name in sorted(members, key=lambda name: (len(members[name]), name)):
            order = list(members[name]) if count[name] < self.per_label else []
            random.Random(f'{self.seed} {name}').shuffle(order)
            order.sort(key=lambda index: sum(count[of] >= self.per_label for of in rows[index]))
            for index in order:
                if count[name] < self.per_label and not picked[index]:
                    picked[index] = 1
                    count.update(of for of in rows[index] if of in members)
        return picked


@contextlib.contextmanager
def replacing(path: Path, mode: str = 'w') -> Iterator[Any]:
    """A file that is written under another name and renamed in the end, so that it is there whole or not at all."""
    made = path.with_name(f'.{path.name}.{platform.node()}-{os.getpid()}')
    text = {} if 'b' in mode else {'encoding': 'utf-8', 'newline': '\n'}
    try:
        with open(made, mode, **text) as out:
            yield out
        os.replace(made, path)
    finally:
        made.unlink(missing_ok=True)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file under another name and rename it, so that it is there whole or not at all."""
    with replacing(path, 'wb') as out:
        out.write(content)


def trusted_certificates() -> str:
    """The CA file that yt-dlp, ffmpeg and we trust alike: the user's, else certifi's."""
    import certifi

    return os.environ.get('SSL_CERT_FILE') or certifi.where()


def address(name: str) -> str:
    """Where AudioSet's files are published."""
    if name == 'ontology.json':
        return ONTOLOGY
    return f'{CORPUS}{"strong" if name.endswith(".tsv") else "v1/csv"}/{name}'


def provide(path: Path, routes: Iterable[str]) -> None:
    """Fetch a list of AudioSet's by the first route that works, unless the user or an earlier run put it there."""
    if path.exists():
        return
    why: object = ''
    for route in routes:
        trust = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=trusted_certificates()))
        ways = [trust, urllib.request.ProxyHandler({'https': route})] if route else [trust]
        try:
            with urllib.request.build_opener(*ways).open(address(path.name), timeout=60) as answer:
                content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, 'reason', error)
            continue
        replace_file(path, content)
        say(f'fetched {path.name}')
        return
    there = ', '.join(sorted(p.name for p in path.parent.glob('*.[ct]sv'))) or 'nothing'
    why = f'{address(path.name)} cannot be fetched ({why})'
    raise UsageError(f'{path} is not there (but {there}), and {why}; put it there yourself')


# ------------------------------------------------------------------------------------------------------------ ledger

SCHEMA = """
CREATE TABLE list (       -- a list that was read
    id INTEGER PRIMARY KEY, name TEXT UNIQUE, rank INT,  -- AudioSet's come first
    size INT, mtime_ns INT,                              -- of its file, as it was read
    bytes INT, lines INT, rows INT, skipped INT,         -- what was read of it; lines that are no rows
    whole INT);                                          -- 1: to its end
CREATE TABLE tagset (     -- the classes of a row: MIDs and display names, JSON
    id INTEGER PRIMARY KEY, tags TEXT, labels TEXT, UNIQUE (tags, labels));
CREATE TABLE clip (       -- a video and its seconds
    id INTEGER PRIMARY KEY, name TEXT, ytid TEXT, start_ms INT, end_ms INT,
    status TEXT,                                         -- NULL: not yet; done, gone, failed
    reason TEXT, message TEXT, settled REAL,             -- of what is not done; when, unix s
    path TEXT, title TEXT, duration REAL, padded REAL, bytes INT, sha256 TEXT, format TEXT, language TEXT,
    UNIQUE (ytid, start_ms, end_ms));
CREATE TABLE asks (       -- a row of a list asks for a clip
    list INT, position INT, clip INT, tagset INT, extra TEXT,  -- extra: events, captions, subset, JSON
    PRIMARY KEY (list, position)) WITHOUT ROWID;
CREATE TABLE route (      -- what it has learned of its limit: rows an hour, unix s
    name TEXT PRIMARY KEY, budget REAL, refused REAL, at REAL);
CREATE TABLE state (name TEXT PRIMARY KEY, value TEXT);  -- who writes, what was written and learned
CREATE INDEX asked ON asks (clip);
CREATE INDEX left_over ON clip (id) WHERE status IS NULL OR status = 'failed';
"""
VERSION, APPLICATION = 1, 0x41534C31  # of the schema; of SQLite's header, 'ASL1'
WHOLE_VIDEO = "status = 'gone' AND reason != 'too short'"  # what holds for every second of a video
SETTLED = 'status, reason, message, settled, path, title, duration, padded, bytes, sha256, format, language'


def ledger_path(settings: Settings, shard: str = '') -> Path:
    """Where the ledger of this ext and shard is."""
    tag = (shard or settings.shard).replace('/', '-of-')
    return settings.wavs / (f'{settings.ext}.sqlite3' if tag == '0-of-1' else f'ledgers/{settings.ext}-{tag}.sqlite3')


def find_ledgers(settings: Settings) -> list[Path]:
    """All ledgers under the root, of every ext and shard, also those that other machines brought."""
    whole = [settings.wavs / f'{ext}.sqlite3' for ext in ENCODE]  # named, for to list two million clips takes long
    return [path for path in whole if path.exists()] + sorted(settings.wavs.glob('ledgers/*.sqlite3'))


def of_ext(path: Path, ext: str) -> bool:
    return re.split(r'[-.]', path.name)[0] == ext


def remedy_for(error: sqlite3.Error) -> str:
    """What to do about a ledger."""
    return 'name another root' if 'readonly' in str(error) else 'move it away: clips in their places are taken in again'


def open_db(path: Path, write: bool) -> sqlite3.Connection:
    """Open a ledger; UsageError for what is none, is damaged or comes of a later version: nothing is written to
    such a file."""
    new = write and not (path.exists() and path.stat().st_size)
    # what a killed run left is rolled back before it is read
    mode = 'rwc' if write else 'rw' if os.access(path, os.W_OK) else 'ro'
    try:
        db = sqlite3.connect(f'{path.absolute().as_uri()}?mode={mode}', 60, uri=True, isolation_level=None)
        try:
            made_by = db.execute('PRAGMA application_id').fetchone()[0]
        except sqlite3.OperationalError:  # a file system without shared memory, which WAL wants
            db.execute('PRAGMA locking_mode = EXCLUSIVE')
            made_by = db.execute('PRAGMA application_id').fetchone()[0]
        require(new or made_by == APPLICATION, f'{path}: not a ledger of this script; move it away')
        version = db.execute('PRAGMA user_version').fetchone()[0]
        require(
            new or version <= VERSION,
            f'{path} was written by a later version of this script; update it, or name another root',
        )
        if write:
            db.execute('PRAGMA cache_size = -24000')  # KiB; the unique index is filled in no order
            db.execute('BEGIN IMMEDIATE')
            db.execute('ROLLBACK')
        if new:
            db.executescript(
                f'BEGIN; {SCHEMA} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}; COMMIT'
            )
        db.execute('SELECT * FROM clip, asks, list, tagset, state LIMIT 1').fetchone()
    except sqlite3.Error as error:
        if shutil.disk_usage(path.parent).free < 1e6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
        raise UsageError(f'{path}: {error}; {remedy_for(error)}') from None
    return db


def claim(path: Path, patience: float = 0) -> filelock.BaseFileLock | None:
    """Be the one writer of a ledger until the lock is released; UsageError names who is. None where the file system
    has no locks."""
    lock = filelock.FileLock(path.with_name(f'.{path.stem}.lock'), timeout=patience)
    try:
        lock.acquire()
    except filelock.Timeout:
        who = 'another run'
        with (
            contextlib.suppress(UsageError, OSError, sqlite3.Error, TypeError),
            contextlib.closing(open_db(path, write=False)) as db,
        ):
            who = db.execute("SELECT value FROM state WHERE name = 'writer'").fetchone()[0]
        raise UsageError(f'{path} is in use by {who}; wait for it, or name another root') from None
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
            raise
        return None
    return lock


class Ledger:
    """The one thing that remembers: what is asked for, what became of it. One writer; whoever reads need not wait."""

    def __init__(self, settings: Settings, write: bool = True, path: Path | None = None) -> None:
        self.path, self.settings, self.write = path or settings.ledger, settings, write
        self.sharded = settings.shard != '0/1'
        self.db = open_db(self.path, write)
        self.committed, self.changed, self.routes = time.monotonic(), False, dict[str, Learned]()
        if write:
            mode = 'DELETE' if self.sharded else 'WAL'  # WAL wants one host; shards may share a network file system
            self.db.execute(f'PRAGMA journal_mode = {mode}')
            self.db.execute('PRAGMA synchronous = NORMAL')
            self.set('writer', f'process {os.getpid()} on {platform.node()}')

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(sqlite3.Error):  # a full disk
            self.commit(at_once=True, patience=60)
        self.db.close()

    def get(self, name: str) -> str:
        found = self.db.execute('SELECT value FROM state WHERE name = ?', (name,)).fetchone()
        return found[0] if found else ''

    def set(self, name: str, value: str) -> None:
        self.db.execute('INSERT OR REPLACE INTO state VALUES (?, ?)', (name, value))

    def begin(self) -> None:
        """Before anything is written: a transaction, and what was written out is out of date."""
        if not self.db.in_transaction:
            self.db.execute('BEGIN IMMEDIATE')
        if not self.changed:
            self.changed = True
            self.set('written', '')

    @contextlib.contextmanager
    def whole_or_nothing(self) -> Iterator[None]:
        """Changes that belong together, committed at the end; a Ctrl-C within takes them back."""
        self.begin()
        self.db.execute('SAVEPOINT together')
        try:
            yield
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # a full disk has taken it back already
                self.db.execute('ROLLBACK TO together')
            raise
        self.db.execute('RELEASE together')
        self.commit(at_once=True)

    def commit(self, at_once: bool = False, patience: float = 1) -> None:
        """A commit for each result; of shards one a second, for each syncs the disk. Who reads a shard's ledger
        longer than `patience` (s) has it wait for the next one."""
        if not self.db.in_transaction or not (at_once or not self.sharded or time.monotonic() - self.committed > 1):
            return
        self.committed = time.monotonic()
        self.db.execute(f'PRAGMA busy_timeout = {1000 * patience:.0f}')
        try:
            self.db.execute('COMMIT')
        except sqlite3.OperationalError as error:
            if 'locked' not in str(error) or patience > 1:
                raise

    def settle(self, result: Result) -> None:
        """Write down what became of a clip, and with it what that says of the other seconds of its video."""
        segment, made, now = result.segment, result.record, time.time()
        why = (None, None) if result.verdict == DONE else (result.reason, result.message)
        names = ('path', 'title', 'duration', 'padded', 'bytes', 'sha256', 'format_id', 'language')
        told = [clean(made.get(name)) for name in names]
        self.begin()
        self.db.execute(
            f'UPDATE clip SET ({SETTLED}) = (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) WHERE id = ?',
            (result.status, *map(clean, why), now, *told, segment.clip),
        )
        others = 'ytid = ? AND id != ?'
        if result.verdict == DONE:  # so the video is there after all
            open_ = 'UPDATE clip SET (status, reason, message, settled) = (NULL, NULL, NULL, NULL)'
            self.db.execute(f'{open_} WHERE {WHOLE_VIDEO} AND {others}', (segment.ytid, segment.clip))
        elif result.verdict == GONE and result.reason != 'too short':
            gone = "UPDATE clip SET status = 'gone', reason = ?, message = ?, settled = ?"
            left = "(status IS NULL OR status = 'failed')"
            self.db.execute(f'{gone} WHERE {left} AND {others}', (*map(clean, why), now, segment.ytid, segment.clip))
        self.commit()

    def learned(self) -> dict[str, Learned]:
        """What the routes have learned in former runs."""
        return {name: Learned(*told) for name, *told in self.db.execute('SELECT name, budget, refused, at FROM route')}

    def remember(self, learned: dict[str, Learned]) -> None:
        """Keep what the routes have learned."""
        if learned != self.routes:
            if not self.db.in_transaction:
                self.db.execute('BEGIN IMMEDIATE')
            rows = [(name, *told) for name, told in learned.items()]
            self.db.executemany('INSERT OR REPLACE INTO route VALUES (?, ?, ?, ?)', rows)
            self.routes = learned
            self.commit()

    def reopen(self, where: str, *values: Any) -> None:
        """Have clips fetched anew."""
        self.begin()
        empty = ', '.join(f'{name.strip()} = NULL' for name in SETTLED.split(','))
        self.db.execute(f'UPDATE clip SET {empty} WHERE {where}', values)
        self.commit()


def clean(value: Any) -> Any:
    """Without halves of characters, which SQLite refuses."""
    return value.encode(errors='replace').decode() if isinstance(value, str) else value


class Known(NamedTuple):
    """A clip that the ledger has, and how a list asks for it, if it does."""

    id: int
    name: str
    start: int  # ms
    end: int  # ms
    status: str | None = None
    reason: str | None = None
    message: str | None = None
    settled: float | None = None
    asked: int | None = None  # position of the row


class Ask(NamedTuple):
    """How a list asks for a clip."""

    position: int
    tags: tuple[str, ...]
    labels: tuple[str, ...]  # classes without a MID
    more: dict[str, Any]

    def join(self, row: Row) -> Ask:
        """With what another row of the same list tells of the clip."""
        more = {**row.more, **self.more}
        for name, both in (('captions', distinct), ('events', list)):
            if name in more:
                more[name] = list(both([*self.more.get(name, ()), *row.more.get(name, ())]))
        return Ask(self.position, distinct([*self.tags, *row.tags]), distinct([*self.labels, *row.labels]), more)


class Tagsets:
    """The numbers of the sets of classes that were met while reading, and which tags have no label."""

    def __init__(self, db: sqlite3.Connection, labels: dict[str, str]) -> None:
        self.db, self.labels, self.unknown = db, labels, set[str]()
        self.ids = dict[tuple[tuple[str, ...], tuple[str, ...]], int]()

    def names(self, tags: Iterable[str]) -> list[str]:
        return [self.labels.get(tag, tag) for tag in tags]

    def number(self, tags: tuple[str, ...], labels: tuple[str, ...]) -> int:
        """The number of a set; says once of each tag that it has no label."""
        if (tags, labels) not in self.ids:
            for tag in set(tags) - self.labels.keys() - self.unknown:
                self.unknown.add(tag)
                say(f'{tag}: has no label in class_labels_indices.csv, kept as it is')
            texts = [json.dumps(names, ensure_ascii=False) for names in (tags, labels or self.names(tags))]
            self.db.execute('INSERT OR IGNORE INTO tagset (tags, labels) VALUES (?, ?)', texts)
            found = self.db.execute('SELECT id FROM tagset WHERE (tags, labels) = (?, ?)', texts).fetchone()
            self.ids[tags, labels] = found[0]
        return self.ids[tags, labels]


def same_seconds(row: Row, clip: Known) -> bool:
    """Whether a row means a clip; one without an end means AudioSet's, however long that is."""
    if row.end is None:
        return row.start == clip.start and (clip.end - clip.start == 1000 * LENGTH or len(clip.name) == 14)
    return (row.start, row.end) == (clip.start, clip.end)


def new_clip(id: int, row: Row, others: list[Known], plain: bool) -> Known:
    """A clip that nobody asked for yet. AudioSet's are named by their video alone; it is gone with its video."""
    end = row.end if row.end is not None else row.start + round(1000 * LENGTH)
    mark = f'_{row.start}' + (f'_{end}' if end - row.start != 1000 * LENGTH else '')
    name = f'id_{row.ytid}' + ('' if plain and all(len(other.name) != 14 for other in others) else mark)
    gone = [other for other in others if other.status == GONE and other.reason != 'too short']
    there = any(other.status == DONE for other in others)
    return Known(id, name, row.start, end, *(gone[0][4:8] if gone and not there else (None,) * 4))


class Batch:
    """Some rows of a list on their way into the ledger: clips that nobody asked for yet, and what the list asks for."""

    def __init__(self, db: sqlite3.Connection, list_id: int, tagsets: Tagsets, videos: set[str]) -> None:
        self.db, self.list_id, self.tagsets = db, list_id, tagsets
        self.clips, self.asks = list[tuple](), dict[int, Ask]()  # asks: by clip
        self.next_id = db.execute('SELECT ifnull(max(id), 0) + 1 FROM clip').fetchone()[0]
        self.position = db.execute('SELECT rows FROM list WHERE id = ?', (list_id,)).fetchone()[0]
        asked = '(SELECT min(position) FROM asks WHERE clip = c.id AND list = ?)'
        columns = 'c.ytid, c.id, c.name, c.start_ms, c.end_ms, c.status, c.reason, c.message, c.settled'
        query = f'SELECT {columns}, {asked} FROM json_each(?) v JOIN clip c ON c.ytid = v.value'
        self.known = defaultdict[str, list[Known]](list)  # clips of these videos
        for ytid, *clip in db.execute(query, (list_id, json.dumps(sorted(videos)))):
            self.known[ytid].append(Known(*clip))

    def add(self, row: Row, weak: bool, plain: bool) -> None:
        """Take a row; ValueError if AudioSet's list has it already. `plain`: its clip is named by its video alone."""
        others = self.known[row.ytid]
        if weak and any(other.asked is not None for other in others):
            raise ValueError(f'{row.ytid} is already a row')
        clip = next((other for other in others if same_seconds(row, other)), None)
        if not clip:
            clip = new_clip(self.next_id + len(self.clips), row, others, plain)
            self.clips.append((clip.id, clip.name, row.ytid, *clip[2:8]))
            others.append(clip)
        if clip.asked is None:
            others[others.index(clip)] = clip._replace(asked=self.position)
            self.asks[clip.id] = Ask(self.position, row.tags, row.labels, row.more)
            self.position += 1
        else:
            self.asks[clip.id] = (self.asks.get(clip.id) or self.former(clip.asked)).join(row)

    def former(self, position: int) -> Ask:
        """How the list asked in a row that was read before."""
        query = 'SELECT tags, labels, extra FROM asks JOIN tagset t ON t.id = tagset WHERE list = ? AND position = ?'
        found = self.db.execute(query, (self.list_id, position)).fetchone()
        tags, labels, more = (json.loads(text or '{}') for text in found)
        return Ask(position, tuple(tags), () if labels == self.tagsets.names(tags) else tuple(labels), more)

    def write(self) -> None:
        columns = 'id, name, ytid, start_ms, end_ms, status, reason, message, settled'
        self.db.executemany(f'INSERT INTO clip ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)', self.clips)
        rows = []
        for clip, (at, tags, labels, more) in self.asks.items():
            told = json.dumps(more, ensure_ascii=False) if more else None
            rows.append((self.list_id, at, clip, self.tagsets.number(tags, labels), told))
        self.db.executemany('INSERT OR REPLACE INTO asks VALUES (?, ?, ?, ?, ?)', rows)


class Reader:
    """Reads lists into the ledger: bit by bit, from where it was; anew what has changed since."""

    def __init__(
        self, ledger: Ledger, lists: dict[str, tuple[Path, Form]], labels: dict[str, str], names: dict[str, str]
    ) -> None:
        self.ledger, self.lists, self.names, self.shown = ledger, lists, names, 0
        self.tagsets = Tagsets(ledger.db, labels)
        self.ids, self.lines = dict[str, int](), dict[str, Iterator[tuple[int, bytes, int]]]()
        for split, (path, form) in lists.items():
            self.ids[split] = self.register(split, path, form)

    def register(self, split: str, path: Path, form: Form) -> int:
        """The list's number; forgets what it asked for if its file is another one now."""
        db, stat = self.ledger.db, path.stat()
        columns = 'id, size, mtime_ns, whole, bytes, lines'
        known = db.execute(f'SELECT {columns} FROM list WHERE name = ?', (split,)).fetchone()
        if not self.ledger.write:  # another run reads the lists
            return known[0] if known else -1 - len(self.ids)
        if known and known[1:3] == (stat.st_size, stat.st_mtime_ns) and (known[3] or not form.headed):
            if not known[3]:
                self.lines[split] = read_lines(path, form.headed, *known[4:])
            return known[0]
        with self.ledger.whole_or_nothing():
            db.execute('INSERT OR IGNORE INTO list (name) VALUES (?)', (split,))
            list_id = db.execute('SELECT id FROM list WHERE name = ?', (split,)).fetchone()[0]
            db.execute('DELETE FROM asks WHERE list = ?', (list_id,))
            rank = rank_of(split)
            columns = '(rank, size, mtime_ns, bytes, lines, rows, skipped, whole) = (?, ?, ?, 0, 0, 0, 0, 0)'
            db.execute(f'UPDATE list SET {columns} WHERE id = ?', (rank, stat.st_size, stat.st_mtime_ns, list_id))
        self.lines[split] = itertools.islice(read_lines(path, form.headed), int(form.headed), None)
        return list_id

    @property
    def whole(self) -> bool:
        return not self.lines

    def skip(self, message: str) -> None:
        self.shown += 1
        if self.shown <= 50:
            say(message if self.shown < 50 else 'more lines are no rows; the table at the end counts them')

    def step(self, lines: int = 2000, split: str = '') -> None:
        """Read on a little, in this list or in the first one that is not whole."""
        if not (split := split or next(iter(self.lines), '')):
            return
        batch = list(itertools.islice(self.lines[split], lines))
        with self.ledger.whole_or_nothing():
            if batch:
                self.take(split, batch)
            if len(batch) < lines:
                self.ledger.db.execute('UPDATE list SET whole = 1 WHERE name = ?', (split,))
        if len(batch) < lines:
            del self.lines[split]

    def finish(self, split: str = '') -> None:
        """Read a list, or all, to the end."""
        while split in self.lines or (not split and self.lines):
            self.step(10_000, split)

    def take(self, split: str, lines: list[tuple[int, bytes, int]]) -> None:
        """Have some lines in the ledger, and say which are no rows."""
        (path, form), list_id, skipped = self.lists[split], self.ids[split], 0
        rows = list[tuple[int, Row]]()  # with the numbers of their lines

        def refuse(number: int, error: Exception) -> None:
            nonlocal skipped
            skipped += 1
            self.skip(f'{path.name}, line {number}: skipped, {error}')

        for number, line, _ in lines:
            try:
                rows.append((number, form.read(line, self.names)))
            except (ValueError, csv.Error) as error:
                refuse(number, error)
        batch = Batch(self.ledger.db, list_id, self.tagsets, {row.ytid for _, row in rows})
        for number, row in rows:
            try:
                batch.add(row, split in WEAK and not form.headed, split in WEAK + STRONG)
            except ValueError as error:
                refuse(number, error)
        batch.write()
        told = (lines[-1][2], lines[-1][0], batch.position, skipped, list_id)
        change = 'bytes = ?, lines = ?, rows = ?, skipped = skipped + ?'
        self.ledger.db.execute(f'UPDATE list SET {change} WHERE id = ?', told)


class Selection:
    """What the settings choose of the ledger's rows: a condition for queries over asks a, lists l and clips c."""

    TABLES = 'asks a JOIN temp.run l ON l.id = a.list JOIN clip c ON c.id = a.clip'

    def __init__(self, reader: Reader, settings: Settings, choice: Choice | None) -> None:
        self.reader, self.db, self.settings, self.choice = reader, reader.ledger.db, settings, choice
        self.classes = dict[int, tuple[str, ...]]()  # of each tagset
        for table in (
            'run (id INTEGER PRIMARY KEY, rank)',
            'wanted (id INTEGER PRIMARY KEY)',
            'picked (list, position)',
        ):
            self.db.execute(f'CREATE TEMP TABLE {table}')
        self.db.executemany('INSERT INTO run VALUES (?, ?)', ((id, n) for n, id in enumerate(reader.ids.values())))
        share, shares = map(int, settings.shard.split('/'))
        self.db.create_function('mine', 1, lambda ytid: zlib.crc32(ytid.encode()) % shares == share, deterministic=True)
        self.where = self.choose()
        above = f'b.clip = a.clip AND m.rank < l.rank{self.where.replace("a.", "b.")}'
        self.shared = f'EXISTS (SELECT 1 FROM asks b JOIN temp.run m ON m.id = b.list WHERE {above})'
        self.first = f' AND NOT {self.shared}' if len(reader.ids) > 1 else ''
        self.last = self.cut()  # the condition for the first so many
        self.where += self.last + (' AND mine(c.ytid)' if shares > 1 else '')

    def choose(self) -> str:
        """The condition on classes; for so many of each, all lists have to be read."""
        if not (self.choice and self.choice.per_label):
            return ' AND a.tagset IN temp.wanted' if self.choice else ''
        self.reader.finish()
        self.refresh()
        for list_id in self.reader.ids.values():
            query = 'SELECT position, tagset FROM asks WHERE list = ? ORDER BY position'
            rows = self.db.execute(query, (list_id,)).fetchall()
            picked = self.choice.pick(self.classes[tagset] for _, tagset in rows)
            kept = ((list_id, position) for position, _ in itertools.compress(rows, picked))
            self.db.executemany('INSERT INTO picked VALUES (?, ?)', kept)
        return ' AND (a.list, a.position) IN temp.picked'

    def refresh(self) -> None:
        """Learn the sets of classes that were read since, and which of them are wanted."""
        known = max(self.classes, default=0)
        for id, tags, labels in self.db.execute(
            'SELECT id, tags, labels FROM tagset WHERE id > ?', (known,)
        ).fetchall():
            self.classes[id] = tuple(json.loads(tags) or json.loads(labels))
            if self.choice and self.choice.takes(self.classes[id]):
                self.db.execute('INSERT INTO wanted VALUES (?)', (id,))

    def cut(self) -> str:
        """The condition for the first so many clips; reads the rows that this takes."""
        left = self.settings.limit or 0
        for rank, (split, list_id) in enumerate(self.reader.ids.items() if left else []):
            within = f'FROM {self.TABLES} WHERE l.id = {list_id}{self.where}{self.first}'
            while True:
                self.refresh()
                last = self.db.execute(
                    f'SELECT a.position {within} ORDER BY a.position LIMIT 1 OFFSET {left - 1}'
                ).fetchone()
                if last:
                    return f' AND (l.rank, a.position) <= ({rank}, {last[0]})'
                if split not in self.reader.lines:
                    break
                self.reader.step()
            left -= self.db.execute(f'SELECT count(*) {within}').fetchone()[0]
        return ''

    def counts(self, *by: str, of: str | None = None) -> Counter[tuple]:
        """How many clips there are by these columns, status and reason ('' of what was not tried or is done). Each
        counts for its first list, unless `of` says else."""
        self.refresh()
        columns = ', '.join([*by, "ifnull(c.status, '')", "ifnull(c.reason, '')"])
        where = self.where + (self.first if of is None else of)
        query = f'SELECT count(*), {columns} FROM {self.TABLES} WHERE true{where} GROUP BY {columns}'
        return Counter({tuple(key): n for n, *key in self.db.execute(query)})

    @property
    def skipped(self) -> int:
        return self.db.execute('SELECT ifnull(sum(skipped), 0) FROM list JOIN temp.run USING (id)').fetchone()[0]

    @property
    def read(self) -> int:
        """Rows that were read so far."""
        return self.db.execute('SELECT ifnull(sum(rows), 0) FROM list JOIN temp.run USING (id)').fetchone()[0]


class Job(Selection):
    """The rows to do of what is chosen."""

    TO_DO = "(c.status IS NULL OR c.status = 'failed')"

    def __init__(self, reader: Reader, settings: Settings, choice: Choice | None) -> None:
        super().__init__(reader, settings, choice)
        self.began, self.given = time.time(), set[int]()  # given: clips on their way

    def reopen(self, reasons: list[str]) -> None:
        """Have the rows that are gone for one of these reasons asked for once more."""
        if reasons:
            within = f"SELECT c.id FROM {self.TABLES} WHERE c.status = 'gone'{self.where}"
            self.reader.ledger.reopen(
                f'reason IN (SELECT value FROM json_each(?)) AND id IN ({within})', json.dumps(reasons)
            )

    def rows(self) -> Iterator[Segment]:
        """The rows to do, in the order of the lists, each once; reads on where that is needed."""
        after, again = 0, not self.reader.whole  # what was asked for before its list changed may stand behind us
        while True:
            found = self.find(f'{self.TO_DO} AND c.id > ? AND (c.status IS NULL OR c.settled < ?)', after, self.began)
            for segment in found:
                if segment.clip not in self.given and self.is_left(segment):
                    self.given.add(segment.clip)
                    yield segment
            if found:
                after = found[-1].clip
            elif not (self.reader.whole or self.last):
                self.reader.step()
            elif again:
                after, again = 0, False
            else:
                return

    def is_left(self, segment: Segment) -> bool:
        """Whether its video was not said to be gone meanwhile."""
        return bool(self.db.execute(f'SELECT 1 FROM clip c WHERE id = ? AND {self.TO_DO}', (segment.clip,)).fetchone())

    def find(self, condition: str, *values: Any, most: int = 200) -> list[Segment]:
        """Some of the chosen rows, by clip, as their first list has them."""
        self.refresh()
        columns = 'c.id, c.name, c.ytid, c.start_ms, c.end_ms, a.tagset, a.position, s.name'
        tables = 'clip c CROSS JOIN asks a ON a.clip = c.id JOIN temp.run l ON l.id = a.list JOIN list s ON s.id = l.id'
        query = f'SELECT {columns} FROM {tables} WHERE {condition}{self.where} ORDER BY c.id, l.rank LIMIT {most}'
        segments = dict[int, Segment]()
        for id, name, ytid, start, end, tagset, position, split in self.db.execute(query, values):
            made = Segment(
                ytid, start / 1000, end / 1000, self.classes[tagset], split, position, clip=id, mark=name[14:]
            )
            segments.setdefault(id, made)
        return list(segments.values())

    def known_good(self) -> list[Segment]:
        """Some rows whose clips are there."""
        return self.find('c.status = ?', DONE, most=5)


# ---------------------------------------------------------------------------------------------- what others can load

SPLIT_FOLDER = re.compile(  # as Hugging Face's datasets knows it; where there is one, it looks nowhere else
    r'(?:[^/]+/)*?(?:[^/]*[-._ 0-9])?'
    r'(?:train(?:ing)?|valid(?:ation)?|val|dev|test(?:ing)?|eval(?:uation)?)(?:[-._ 0-9][^/]*)?/'
)
RECORDS = """
SELECT c.id, c.name, json_quote(c.path), json_quote(c.title), c.ytid, c.start_ms / 1000.0, c.end_ms / 1000.0,
    c.duration, json_quote(c.format), json_quote(c.language), c.padded, l.name, t.tags, t.labels, a.extra
FROM clip c CROSS JOIN asks a ON a.clip = c.id JOIN list l ON l.id = a.list JOIN tagset t ON t.id = a.tagset
WHERE c.status = 'done' ORDER BY c.id, l.rank, l.id, a.position"""
MORE = ['language', 'padded', 'subset', 'events', 'captions', 'lists', 'also']  # fields of some records only


def combine(rows: list[tuple]) -> tuple[str, str, str, dict[str, Any]]:
    """Split, tags and labels (JSON) of a clip, and what else all its lists tell: the first one's come first,
    nothing else is replaced. Of strong labels beside weak ones only the events count."""
    split, tags, labels, extra = rows[0]
    record: dict[str, Any] = json.loads(extra or '{}')
    held = {'tags': json.loads(tags), 'labels': json.loads(labels)}
    for name, other_tags, other_labels, other_extra in rows[1:]:
        record.setdefault('lists', [split]).append(name)
        told = json.loads(other_extra or '{}')
        if name not in STRONG:
            told |= {'tags': json.loads(other_tags), 'labels': json.loads(other_labels)}
        for field, value in sorted(told.items()):
            if field in ('events', 'captions') and not record.get(field):
                record[field] = value
                continue
            values, ours = [value] if isinstance(value, str) else value, record.get(field) or held.get(field) or []
            if any(item not in ours for item in values):
                plain = [item if isinstance(item, str) else json.dumps(item) for item in values]
                record.setdefault('also', []).append({'list': name, 'field': field, 'values': plain})
    return split, tags, labels, record


def read_records(db: sqlite3.Connection, ext: str) -> Iterator[tuple[str, str, str, set[str]]]:
    """Name, path, record (JSON without its opening brace) and the fields of it that only some records have."""
    for _, group in itertools.groupby(db.execute(RECORDS), key=lambda row: row[0]):
        (_, name, path, title, ytid, start, end, duration, form, language, padded, *row), *others = group
        plain = not (others or row[3])
        split, tags, labels, more = (*row[:3], {}) if plain else combine([row, *(other[11:] for other in others)])
        rest = '' if language == 'null' else f', "language": {language}'
        rest += '' if padded is None else f', "padded": {padded}'
        fields = {field for field in MORE if field in more or f'"{field}"' in rest}
        if more:
            rest += ', ' + json.dumps({field: more[field] for field in MORE if field in more}, ensure_ascii=False)[1:-1]
        yield (
            name,
            json.loads(path) if '\\' in path else path[1:-1],
            (
                f'"id": "{name}", "ext": "{ext}", "path": {path}, "title": {title}, '
                f'"url": "https://www.youtube.com/watch?v={ytid}", "tags": {tags}, "labels": {labels}, '
                f'"ytid": "{ytid}", "split": "{split}", "start": {start}, "end": {end}, "duration": {duration}, '
                f'"format_id": {form}{rest}}}'
            ),
            fields | {f'{field}s' for field, value in (('tag', tags), ('label', labels)) if value != '[]'},
        )


class Listing:
    """A metadata.jsonl as Hugging Face's audiofolder takes it. It takes the columns and their types from the first
    lines, so there one of each comes first."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)  # the clips may be elsewhere
        self.path, self.heads, self.lines, self.late = path, dict[str, str](), 0, False
        self.made = path.with_name(f'.{path.name}.{platform.node()}-{os.getpid()}-body')
        self.body = open(self.made, 'w', encoding='utf-8', newline='\n')  # noqa: SIM115  # until `close`

    def add(self, line: str, fields: set[str]) -> None:
        self.lines += 1
        for field in fields - self.heads.keys():
            self.heads[field] = line
            self.late = self.late or self.lines > 1000
        self.body.write(line)

    def close(self) -> None:
        self.body.close()
        heads = dict.fromkeys(self.heads.values()) if self.late else {}
        if not heads:
            return os.replace(self.made, self.path)
        with replacing(self.path) as out, open(self.made, encoding='utf-8', newline='\n') as body:
            out.writelines(heads)
            out.writelines(line for line in body if line not in heads)
        return self.made.unlink()


def write_records(db: sqlite3.Connection, settings: Settings) -> tuple[int, list[Path]]:
    """Make audioset_metadata.json, an id and its record a line, and the listings; returns how many records there
    are."""
    listings, count = dict[str, Listing](), 0
    try:
        with replacing(settings.metadata) as out:
            out.write('{')
            for name, path, record, fields in read_records(db, settings.ext):
                out.write(f'{"," if count else ""}\n"{name}": {{{record}')
                file = path.removeprefix('wavs/')
                folder = found[0] if '/' in file and (found := SPLIT_FOLDER.match(file)) else ''
                if folder not in listings:
                    listings[folder] = Listing(settings.wavs / folder / 'metadata.jsonl')
                quoted = (
                    json.dumps(file[len(folder) :], ensure_ascii=False) if '\\' in file else f'"{file[len(folder) :]}"'
                )
                listings[folder].add(f'{{"file_name": {quoted}, {record}\n', fields)
                count += 1
            out.write('\n}\n')
        for listing in listings.values():
            listing.close()
    finally:
        for listing in listings.values():
            listing.body.close()
            listing.made.unlink(missing_ok=True)
    if listings and '' not in listings:
        (settings.wavs / 'metadata.jsonl').unlink(missing_ok=True)
    return count, [settings.metadata, *(listing.path for listing in listings.values())]


def stamp(path: Path) -> str:
    """Size and time of a file, '' for none: whether it is the one that was met before."""
    with contextlib.suppress(OSError):
        stat = path.stat()
        return f'{stat.st_size} {stat.st_mtime_ns}'
    return ''


def merge_metadata(ledger: Ledger) -> str:
    """The metadata and the listings, anew if anything has changed since they were made; says how many records there
    are."""
    settings = ledger.settings
    before = json.loads(ledger.get('written') or '{}')
    files = before.get('files', {})
    if not files or any(stamp(Path(path)) != then for path, then in files.items()):
        ledger.commit(at_once=True)
        count, paths = write_records(ledger.db, settings)
        before = {'records': count, 'files': {str(path): stamp(path) for path in paths}}
        if ledger.write:
            ledger.set('written', json.dumps(before))
            ledger.changed = False
    return f'{before["records"]} records in {settings.metadata}'


# ------------------------------------------------------------------------------------------------ one ledger of many


@contextlib.contextmanager
def attached(ledger: Ledger, path: Path) -> Iterator[sqlite3.Connection]:
    """Have another ledger beside ours, as `other`; what is changed within belongs together."""
    open_db(path, write=False).close()
    ledger.commit(at_once=True, patience=60)
    ledger.db.execute('ATTACH ? AS other', (f'{path.absolute().as_uri()}?mode=ro',))
    try:
        with ledger.whole_or_nothing():
            yield ledger.db
    finally:
        ledger.commit(at_once=True, patience=60)
        ledger.db.execute('DETACH other')


def learn(ledger: Ledger, path: Path) -> None:
    """Take over what another ledger knows to be settled; of another ext only what is gone. Nothing if it has not
    changed."""
    name, statuses = f'learned {path.name}', "('done', 'gone')" if of_ext(path, ledger.settings.ext) else "('gone')"
    now = f'{stamp(path)} {stamp(path.with_name(path.name + "-wal"))}'  # as it is before we read
    if ledger.get(name) == now:
        return
    columns = f'name, ytid, start_ms, end_ms, {SETTLED}'
    told = ', '.join(f'{column.strip()} = excluded.{column.strip()}' for column in SETTLED.split(','))
    with attached(ledger, path) as db:
        db.execute(
            f'INSERT INTO clip ({columns}) SELECT {columns} FROM other.clip WHERE status IN {statuses} '
            f'ON CONFLICT (ytid, start_ms, end_ms) DO UPDATE SET {told} '
            "WHERE clip.status IS NULL OR clip.status = 'failed' OR (clip.status, excluded.status) = ('gone', 'done')"
        )
        ledger.set(name, now)


def copy_lists(ledger: Ledger, path: Path) -> None:
    """Take over the lists that another ledger has read and this one has not."""
    with attached(ledger, path) as db:
        ours = dict(db.execute('SELECT name, rows FROM list'))
        for id, name, rows in db.execute('SELECT id, name, rows FROM other.list').fetchall():
            if rows > ours.get(name, -1):
                copy_list(db, id, name)


def copy_list(db: sqlite3.Connection, id: int, name: str) -> None:
    """Take over a list of the attached ledger."""
    db.execute('INSERT OR IGNORE INTO list (name) VALUES (?)', (name,))
    mine = db.execute('SELECT id FROM list WHERE name = ?', (name,)).fetchone()[0]
    db.execute('DELETE FROM asks WHERE list = ?', (mine,))
    columns = 'rank, size, mtime_ns, bytes, lines, rows, skipped, whole'
    told = f'(SELECT {columns} FROM other.list WHERE id = ?)'
    db.execute(f'UPDATE list SET ({columns}) = {told} WHERE id = ?', (id, mine))
    db.execute('INSERT OR IGNORE INTO tagset (tags, labels) SELECT tags, labels FROM other.tagset')
    columns, theirs = 'name, ytid, start_ms, end_ms', 'other.asks a JOIN other.clip c ON c.id = a.clip'
    clips = f'SELECT {columns} FROM {theirs} WHERE a.list = ? ORDER BY a.position'
    db.execute(f'INSERT OR IGNORE INTO clip ({columns}) {clips}', (id,))
    db.execute(
        f'INSERT INTO asks SELECT ?, a.position, m.id, n.id, a.extra FROM {theirs} '
        'JOIN other.tagset t ON t.id = a.tagset JOIN tagset n ON (n.tags, n.labels) = (t.tags, t.labels) '
        'JOIN clip m ON (m.ytid, m.start_ms, m.end_ms) = (c.ytid, c.start_ms, c.end_ms) WHERE a.list = ?',
        (mine, id),
    )


def merge_ledgers(settings: Settings) -> str:
    """The metadata of all ledgers of this ext, those of shards among them; beside a run, of what that has so far."""
    paths = [path for path in find_ledgers(settings) if of_ext(path, settings.ext)]
    require(paths, f'{settings.wavs} has no ledger of {settings.ext}: nothing to merge')
    settings.ledger = ledger_path(settings, '0/1')
    try:
        lock = claim(settings.ledger)
    except UsageError:
        with Ledger(settings, write=False) as ledger:
            return merge_metadata(ledger)
    with lock or contextlib.nullcontext(), Ledger(settings) as ledger:
        for path in paths:
            if path != ledger.path:
                copy_lists(ledger, path)
                learn(ledger, path)
        return merge_metadata(ledger)


def is_whole(settings: Settings, path: str, size: int, digest: str) -> bool:
    """Whether a clip is, to the bit, as the ledger says."""
    clip = settings.root / path
    with contextlib.suppress(OSError):
        return clip.stat().st_size == size and hashlib.sha256(clip.read_bytes()).hexdigest() == digest
    return False


def verify_clips(ledgers: list[Ledger]) -> None:
    """Look at every clip; those that are not as recorded are to be fetched again."""
    settings = ledgers[0].settings
    clips = {
        row[0]: row
        for ledger in ledgers
        for row in ledger.db.execute("SELECT path, bytes, sha256 FROM clip WHERE status = 'done'")
    }
    lost = [
        path
        for path, *row in tqdm(clips.values(), 'verifying', disable=not sys.stderr.isatty())
        if not is_whole(settings, path, *row)
    ]
    for ledger in ledgers if lost else []:
        ledger.reopen('path IN (SELECT value FROM json_each(?))', json.dumps(lost))
    for path in lost:
        (settings.root / path).unlink(missing_ok=True)
    say(f'verified {len(clips)} clips: {len(lost)} missing or damaged')


# ------------------------------------------------------------------------------------------------------------- fetch


class Output(NamedTuple):
    """What depends on the kind of output."""

    picture: bool
    mimes: tuple[str, ...]  # of YouTube's streams that are enough where they are whole
    tolerance: (
        float  # s that a clip may be from its nominal length: containers round, mp4 keeps frames behind an edit list
    )
    streams: list[str]  # ffmpeg's words for what is not the sound


def output_for(settings: Settings) -> Output:
    """The one branch on audio or video."""
    if settings.ext != 'mp4':
        return Output(False, ('audio/mp4',), 0.1, ['-vn'])
    frames = ['-c:v', 'libx264', '-preset', 'veryfast', '-crf', '20'] if settings.exact_frames else []
    return Output(True, ('video/mp4; codecs="avc1', 'audio/mp4'), 0.2, frames)


SHORT = 2.0  # s that a format may be shorter than its video (whose length YouTube rounds) and still be whole
Source = dict[str, Any]  # a format, as yt-dlp describes it


def is_direct(source: Source) -> bool:
    """Whether ffmpeg seeks in it over the network, exactly; in HLS it begins up to a segment early."""
    return source.get('protocol') in ('https', 'http') and not source.get('fragments')


def length_of(source: Source, video: float) -> float:
    """Length in s of a format, as its address and its size tell; 0 if they do not. `video`: what yt-dlp takes for
    it then."""
    told = re.search(r'[?&/]dur[=/]([\d.]+)', source.get('url') or '')
    size, rate = source.get('filesize_approx') or 0, source.get('tbr') or 0  # bytes, kbit/s
    lengths = [float(told[1])] if told else []
    if size and rate and abs(size / rate / 125 - video) > 0.002:
        lengths.append(size / rate / 125)
    return min(lengths, default=0.0)


def is_original(source: Source, tracks: list[str]) -> bool:
    """Whether its sound is the original, where YouTube names tracks; 10 and 5 are yt-dlp's numbers for original and
    default."""
    wanted = 10 if any('original' in track.lower() for track in tracks) else 5
    if (source.get('format_id') or '').endswith('-drc') or 'descri' in (source.get('format_note') or '').lower():
        return False  # of even loudness, or for the blind
    return not tracks or source.get('language_preference') == wanted


def is_combined(source: Source) -> bool:
    """Whether picture and sound come as one."""
    return 'none' not in (source.get('vcodec'), source.get('acodec'))


def rank(option: tuple[Source, ...], video: float, settings: Settings) -> tuple:
    """What is whole comes first, then what ffmpeg can seek over the network; H.264 before AV1, which few pipelines
    decode."""
    first, last = option[0], option[-1]
    lengths = [length_of(source, video) for source in option]
    whole = all(not length or length > video - SHORT for length in lengths)
    avc, mp4 = (first.get('vcodec') or '').startswith('avc1'), last.get('ext') in ('m4a', 'mp4')
    if output_for(settings).picture:
        kind = (2 * mp4 if is_combined(first) else 3 * (avc and mp4), avc)
    elif is_combined(first):
        kind = (-1, mp4, (first.get('height') or 0) <= settings.max_height)
    else:
        kind = (last.get('quality') or 0, mp4)  # Opus of 128 kbit/s before AAC of 48
    return whole, all(map(is_direct, option)), kind


def originals(formats: list[Source], streams: list[dict[str, Any]]) -> list[Source]:
    """The formats with the original sound; Refused if there are none. `formats` are yt-dlp's, best last, `streams`
    all that YouTube names, also without an address."""
    tracks = [stream['audioTrack'].get('displayName') or '' for stream in streams if stream.get('audioTrack')]
    heard = [source for source in formats if source.get('acodec') != 'none']
    ours = [source for source in heard if is_original(source, tracks)]
    if heard and not ours:
        raise Refused('the original sound has no address, only other tracks have one')
    kinds = [stream.get('mimeType') or '' for stream in streams]
    if (
        not heard
        and any('video/' in kind for kind in kinds)
        and not any(re.search('audio/|mp4a|opus', kind) for kind in kinds)
    ):
        raise Refused('the video has no sound')
    return ours


def choose(settings: Settings, formats: list[Source], ours: list[Source], video: float) -> tuple[Source, ...]:
    """What to make a clip of: one format, or picture and sound. `ours` are those with the original sound, `video`
    is the length in s."""
    heard = [source for source in formats if source.get('acodec') != 'none']
    options: list[tuple[Source, ...]] = [(source,) for source in ours]
    if output_for(settings).picture:
        seen = [source for source in formats if source.get('vcodec') != 'none']
        low = [source for source in seen if (source.get('height') or 0) <= settings.max_height]
        options = [(source,) for source in low if source in ours]
        options += [(picture, sound) for picture in low if picture not in heard for sound in ours if sound not in seen]
    if not options:
        raise Refused('no format with what is wanted has an address')
    return max(reversed(options), key=lambda option: rank(option, video, settings))


def lead_in(settings: Settings, segment: Segment, sources: list[Source]) -> float:
    """How many s before its start a clip is read from, because ffmpeg seeks by pictures where sound comes with them."""
    return min(segment.start, 1.0) if is_combined(sources[0]) and not output_for(settings).picture else 0.0


def output_args(settings: Settings, segment: Segment, codec: str, lead: float) -> list[str]:
    """What ffmpeg gets for its output; `codec` is the source's. AAC stays as it is where AAC is wanted."""
    cut = [*(['-ss', str(lead)] if lead else []), '-t', str(segment.end - segment.start)]  # to the sample
    streams = output_for(settings).streams
    if settings.ext in ('m4a', 'mp4') and codec.startswith('mp4a') and not (settings.sample_rate or settings.channels):
        return [*streams, '-c:a', 'copy', *IN_MP4, *(cut if lead else [])]
    rate = ['-ar', str(settings.sample_rate)] if settings.sample_rate else []
    count = ['-ac', str(settings.channels)] if settings.channels else []
    return [*streams, *ENCODE[settings.ext], *rate, *count, *cut]


HTTP_FLAGS = {
    'multiple_requests': 1,
    'initial_request_size': 8192,
    'short_seek_size': 32768,
    'request_size': 0,
}  # of ffmpeg 9
REQUESTS = {
    'm4a': 1.0,
    'webm': 1.4,
    'mp4': 1.4,
}  # ext of a source -> size of its requests in terms of a clip's, as measured


def input_args(settings: Settings, segment: Segment, source: Source, flags: set[str], lead: float) -> list[str]:
    """What ffmpeg gets before an input: the seconds to read and, of the network, whom to trust and how much to ask
    for."""
    start, length = segment.start - lead, segment.end - segment.start + lead
    cut = [*(['-ss', str(start)] if start else []), '-t', str(length)]  # seeking to 0 costs Opus its first packet
    if not is_direct(source):
        return ['-loglevel', 'error', *cut]
    args = ['-loglevel', 'error', '-rw_timeout', str(int(settings.timeout * 1e6))]  # µs
    args += ['-tls_verify', '1', '-ca_file', trusted_certificates()]
    size = int((source.get('tbr') or 1000) * 125 * length * REQUESTS.get(source.get('ext') or '', 1.4))
    for flag, value in {**HTTP_FLAGS, 'request_size': max(size, 1 << 16)}.items():
        args += [f'-{flag}', str(value)] if flag in flags else []
    return args + cut


class Listener(list):
    """yt-dlp's logger: keeps the warnings of a question, for a 429 or a network error is told in a warning only."""

    warning = list.append

    def __bool__(self) -> bool:
        return True  # else yt-dlp takes an empty one for none, and writes to the terminal

    def hint(self, words: str) -> str:
        """The words of an error, or of the warning that tells its cause; of expired cookies even without an error."""
        causes = {'cookies'}
        if words and judge(words)[0] in (*VAGUE, 'no sound', 'dubbed', 'damaged'):  # too vague to be the cause
            causes |= {'network', *(reason for reason, verdict, *_ in VERDICTS if verdict == THROTTLED)}
        return next((warning for warning in self if judge(warning)[0] in causes), words)

    def debug(self, message: str) -> None:
        pass

    error = debug


def named_streams(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """All formats that YouTube names in an answer, those without an address among them."""
    streams = answer.get('streamingData') or {}
    return [*(streams.get('formats') or []), *(streams.get('adaptiveFormats') or [])]


def narrow(answer: dict[str, Any], mimes: tuple[str, ...]) -> None:
    """Drop what we would not choose from YouTube's answer: yt-dlp spends most of its time on that."""
    streams = answer.get('streamingData') or {}
    offered = streams.get('adaptiveFormats') or []
    longest = max((int(stream.get('approxDurationMs') or 0) for stream in offered), default=0)
    whole = [
        stream for stream in offered
        if stream.get('url') and int(stream.get('approxDurationMs') or 0) > longest - 1000 * SHORT
        and stream.get('audioQuality') != 'AUDIO_QUALITY_LOW' and not stream.get('isDrc')
    ]  # fmt: skip
    kept = [[stream for stream in whole if stream.get('mimeType', '').startswith(mime)] for mime in mimes]
    if kept and all(kept) and not any(stream.get('audioTrack') for stream in offered):
        streams['adaptiveFormats'], streams['formats'] = sum(kept, []), []
    for unused in ('captions', 'storyboards'):
        answer.pop(unused, None)


def our_extractor(settings: Settings, stock: type, cheap: bool) -> Any:
    """yt-dlp's YouTube extractor, which also chooses the formats: only YouTube's own answer names tracks without an
    address."""
    mimes = () if 'format' in settings.ydl_opts else output_for(settings).mimes

    class YoutubeIE(stock):  # its name is the key under which yt-dlp looks for its arguments
        streams: list[dict[str, Any]] = []
        length = math.inf  # s

        def _extract_player_responses(self, *args: Any, **kwargs: Any) -> Any:
            answers, *rest = super()._extract_player_responses(*args, **kwargs)
            self.streams = [stream for answer in answers for stream in named_streams(answer)]
            lengths = [int((answer.get('videoDetails') or {}).get('lengthSeconds') or 0) for answer in answers]
            told = max((int(stream.get('approxDurationMs') or 0) / 1000 for stream in self.streams), default=0)
            self.length = max(lengths, default=0) or told or math.inf
            for answer in answers if cheap else []:
                narrow(answer, mimes)
            return answers, *rest

        def choose(self, context: dict[str, Any]) -> Iterator[Source]:
            ours = originals(context['formats'], self.streams)
            if 'format' in settings.ydl_opts:  # somebody's own, of the original all the same
                kept = [source for source in context['formats'] if source.get('acodec') == 'none' or source in ours]
                yield from self._downloader.build_format_selector(settings.ydl_opts['format'])(
                    {**context, 'formats': kept}
                )
                return
            chosen = choose(settings, context['formats'], ours, self.length)
            if cheap and not rank(chosen, self.length, settings)[0]:
                raise Refused(f'every format with sound ends at {length_of(chosen[-1], self.length)} s')
            ids, protocols = ('+'.join(source[key] for source in chosen) for key in ('format_id', 'protocol'))
            merged = {'requested_formats': list(chosen), 'format_id': ids, 'protocol': protocols, 'ext': 'mp4'}
            merged['language'] = chosen[-1].get('language')
            yield merged if len(chosen) > 1 else chosen[0]

    return YoutubeIE()


def open_ydl(settings: Settings, listener: Listener, route: str, cookies: Path | None, cheap: bool) -> Any:
    """A YoutubeDL to keep: the cheap one makes one request per video, the full one does all that yt-dlp can do."""
    import yt_dlp

    options: dict[str, Any] = {
        'quiet': True, 'noprogress': True, 'color': 'never', 'logger': listener, 'nopart': True, 'overwrites': True,
        'ffmpeg_location': settings.ffmpeg, 'cookiefile': cookies and str(cookies),
        'noplaylist': True, 'socket_timeout': settings.timeout, 'extractor_retries': 0,  # a row is tried again
        'fragment_retries': 3, 'skip_unavailable_fragments': False,  # else what follows a lost one moves
        'compat_opts': {'no-certifi'} if os.environ.get('SSL_CERT_FILE') else set(),
        **({'proxy': route} if route else {}), **settings.ydl_opts, 'format': lambda context: extractor.choose(context),
    }  # fmt: skip
    if not cheap:
        ydl = yt_dlp.YoutubeDL(options)
    else:
        skip = {'player_skip': ['webpage', 'configs', 'js', 'initial_data'], 'skip': ['hls', 'dash', 'translated_subs']}
        client = {'player_client': [settings.client]} if settings.client else {}  # else yt-dlp knows which
        theirs = options.get('extractor_args') or {}
        options['extractor_args'] = {**theirs, 'youtube': {**skip, **client, **theirs.get('youtube', {})}}

        class QuietYoutubeDL(yt_dlp.YoutubeDL):
            def _forceprint(self, *_: Any) -> None:  # else it renders tables of formats that nobody prints
                pass

        ydl = QuietYoutubeDL({**options, 'js_runtimes': {}}, auto_init=False)
    extractor = our_extractor(settings, type(ydl.get_info_extractor('Youtube')), cheap)
    ydl.add_info_extractor(extractor)
    if 'format' in settings.ydl_opts:
        ydl.build_format_selector(settings.ydl_opts['format'])  # raises where it does not parse
    return ydl


OURS = dict.fromkeys([  # options of yt-dlp that this script decides -> the setting to use, if there is one
    'quiet', 'noprogress', 'color', 'logger', 'nopart', 'overwrites', 'noplaylist', 'ignoreerrors', 'outtmpl', 'paths',
    'simulate', 'skip_download', 'postprocessors', 'progress_hooks', 'download_ranges', 'external_downloader',
    'external_downloader_args', 'extractor_retries', 'skip_unavailable_fragments', 'hls_prefer_native',
    'ignore_no_formats_error', 'allow_unplayable_formats',
], '') | {'ffmpeg_location': 'ffmpeg', 'socket_timeout': 'timeout', 'proxy': 'proxies'}  # fmt: skip
NUMBERS = {'retries', 'fragment_retries', 'file_access_retries', 'ratelimit', 'throttledratelimit', 'http_chunk_size'}


def try_question(settings: Settings, cheap: bool) -> None:
    """Go through the motions of a question to YouTube without a network: what yt-dlp cannot take of the options
    raises."""
    from yt_dlp.networking.exceptions import TransportError
    from yt_dlp.utils import DownloadError

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise TransportError('nobody is asked')

    with contextlib.closing(open_ydl(settings, Listener(), '', None, cheap)) as ydl:
        ydl.urlopen, ydl.params['sleep_interval_requests'] = refuse, 0
        ydl.cookiejar  # noqa: B018  # reads what it is to read
        with contextlib.suppress(DownloadError):
            ydl.extract_info(Segment('0' * 11, 0, 0, (), '').url, download=False)


def check_ydl_opts(settings: Settings) -> None:
    """Refuse options for yt-dlp that are ours, or that it cannot take, before anything starts."""
    if not settings.ydl_opts:
        return
    from yt_dlp.options import create_parser
    from yt_dlp.utils import YoutubeDLError

    known = {option.dest: option for group in create_parser().option_groups for option in group.option_list}
    for name, value in settings.ydl_opts.items():
        instead = f'; use {OURS[name]}' if OURS.get(name) else ''
        require(name not in OURS, f'ydl_opts: {name} is decided by this script{instead}')
        if name in NUMBERS or (known.get(name) and known[name].type in ('int', 'float')):
            require(type(value) in (int, float, NONE), f'ydl_opts: {name} = {value!r}: use a number')
    try:
        try_question(settings, cheap=True)
        try_question(settings, cheap=False)
    except (YoutubeDLError, SyntaxError, ValueError, TypeError, AttributeError, KeyError, OSError) as error:
        text = ' '.join(str(error).removeprefix('ERROR: ').split())
        raise UsageError(f'ydl_opts: yt-dlp does not take them: {type(error).__name__}: {text[:200]}') from None


def end_at_once(*_: object) -> NoReturn:
    """What SIGTERM does to a worker, wherever it is: no ffmpeg outlives it, where the system has groups of
    processes."""
    if hasattr(os, 'killpg') and os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def end_with_parent(scratch: Path) -> None:
    """No worker outlives the program, however that ends, nor do its copies of the cookies."""
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    shutil.rmtree(scratch, ignore_errors=True)
    end_at_once()


def logged_popen(log: Path) -> type:
    """yt-dlp's process class, for its ffmpeg, with its stderr kept in `log`."""
    from yt_dlp.utils import Popen

    class LoggedPopen(Popen):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            with open(log, 'wb') as words:
                super().__init__(*args, stderr=words, **kwargs)

    return LoggedPopen


def shortest_track(path: Path) -> float:
    """Duration in s of what ends first in an mp4, picture or sound, as its edit lists show them; 0 if there is not
    both."""
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


def bring(made: Path, folder: Path) -> Path:
    """Have a finished clip on the disk of wavs/ for good, so that its place is only a renaming away."""
    there = folder / made.name
    try:
        os.replace(made, there)
    except OSError as error:
        if error.errno != errno.EXDEV:  # temps/ is on another file system
            raise
        shutil.copyfile(made, there)
    with open(there, 'rb+') as clip:
        os.fsync(clip.fileno())
    return there


def place(settings: Settings, segment: Segment) -> Path:
    """Where a clip belongs. Folders of 5000 are what file systems and people can still look into."""
    fields = {key: getattr(segment, key) for key in ('ytid', 'split', 'start', 'end', 'index')}
    return settings.wavs / f'{settings.name.format(**fields, part=segment.index // 5000)}{segment.mark}.{settings.ext}'


class Asker:
    """What a process asks YouTube with: its YoutubeDLs, two for each route, and their copies of the cookies."""

    def __init__(self, settings: Settings, scratch: Path) -> None:
        self.settings, self.scratch = settings, scratch
        self.listener, self.ydls, self.copies = Listener(), dict[tuple[str, bool], Any](), list[Path]()
        self.task = Task(Segment('', 0, 0, (), ''))
        self.doubted: Refused | None = None  # what the cheap request was refused for

    def begin(self, task: Task) -> None:
        """Get ready for a task; other cookies than last time need other YoutubeDLs."""
        if task.cookies != self.task.cookies:
            self.forget()
        self.task, self.doubted = task, None

    def forget(self) -> None:
        """Close all YoutubeDLs and their connections."""
        for ydl in self.ydls.values():
            ydl.close()
        self.ydls.clear()
        while self.copies:
            self.copies.pop().unlink(missing_ok=True)

    def copy_cookies(self) -> Path | None:
        """A copy for one YoutubeDL, for yt-dlp writes cookies back."""
        if not self.task.cookies:
            return None
        handle, copy = tempfile.mkstemp('.txt', 'cookies', self.scratch)  # for the owner's eyes only
        with open(handle, 'w', encoding='utf-8') as out:
            out.write(self.task.cookies)
        self.copies.append(Path(copy))
        return self.copies[-1]

    @property
    def may_be_cheap(self) -> bool:
        return not self.task.cookies and not {'cookiefile', 'cookiesfrombrowser'} & self.settings.ydl_opts.keys()

    def ydl(self, cheap: bool) -> Any:
        key = self.task.proxy, cheap
        if key not in self.ydls:
            self.ydls[key] = open_ydl(self.settings, self.listener, self.task.proxy, self.copy_cookies(), cheap)
        return self.ydls[key]

    def ask(self, segment: Segment, cheap: bool) -> dict[str, Any]:
        """YouTube's description of a video, formats chosen; Refused if it has none for us."""
        from yt_dlp.utils import YoutubeDLError

        self.listener.clear()
        info, words = {}, ''
        try:
            info = self.ydl(cheap).extract_info(segment.url, download=False)
        except Refused as refused:
            words = refused.words
        except YoutubeDLError as error:
            cause = (getattr(error, 'exc_info', None) or [None, error])[1]
            plain = str(cause) if isinstance(cause, YoutubeDLError) else f'{type(cause).__name__}: {cause}'
            words = getattr(cause, 'orig_msg', None) or plain
        if info.get('live_status') in ('is_live', 'is_upcoming', 'post_live'):
            words = f'live event: {info["live_status"]}'
        if info.get('id', segment.ytid) != segment.ytid:  # a trailer in its place, for one
            words = f'Video unavailable, YouTube offers {info["id"]} instead'
        if words := self.listener.hint(words):
            raise Refused(words)
        return info

    def ask_twice(self, segment: Segment) -> tuple[dict[str, Any], bool]:
        """Ask cheaply, and in full where the answer to that cannot be believed; True if only the full way brought
        it. A worker that is throttled does not ask a second time: that would only cost more refusals."""
        cheap = self.task.cheap and self.may_be_cheap
        if cheap:
            try:
                return self.ask(segment, cheap=True), False
            except Refused as refused:
                if refused.sure or refused.verdict == THROTTLED:
                    raise
                self.doubted = refused
        info, self.doubted = self.ask(segment, cheap=False), None
        return info, cheap


class Worker:
    """What a process keeps from clip to clip: its settings, its scratch folder and what it asks YouTube with."""

    def __init__(self, settings: Settings, folder: Path, http_flags: set[str]) -> None:
        from yt_dlp.downloader import external

        self.settings, self.http_flags, self.tolerance = settings, http_flags, output_for(settings).tolerance
        self.scratch = Path(tempfile.mkdtemp(dir=folder))  # for the owner's eyes only
        self.log = self.scratch / 'ffmpeg.log'
        self.log.touch()
        external.Popen = logged_popen(self.log)
        self.asker = Asker(settings, self.scratch)

    def cut(self, info: dict[str, Any], segment: Segment, made: Path) -> float:
        """Make the final file of the wanted seconds; returns its duration (s). A video ends where its sound ends."""
        sources = info.pop('requested_formats', None) or [info]
        sources = [source if is_direct(source) else self.download_whole(info, source) for source in sources]
        end, slack = self.find_end(info, sources, segment)
        nominal, slack = min(segment.end, end) - segment.start, slack if end < segment.end + slack else 0.0
        made_before = None
        for flags in (set() if segment.tries else self.http_flags, set()):  # again without what only new ffmpegs have
            duration = self.run_ffmpeg(info, sources, segment, flags, made)
            if duration > TOO_SHORT and abs(duration - nominal) <= output_for(self.settings).tolerance + slack:
                return duration
            if (segment.end < end - SHORT and not is_combined(sources[0])) or duration > nominal or self.ffmpeg_words():
                break
            if made_before is not None and abs(duration - made_before) < 0.05:
                if duration > TOO_SHORT:
                    return duration
                if segment.start > end - SHORT or is_combined(sources[0]):
                    raise Refused(f'the video ends at {segment.start + duration:.3f} s, {segment.start} s are wanted')
            made_before = duration
        raise Refused(f'ffmpeg made {duration:.3f} s instead of {nominal:.3f} s. {self.ffmpeg_words()}')

    def find_end(self, info: dict[str, Any], sources: list[Source], segment: Segment) -> tuple[float, float]:
        """Where the sound ends (s), and how far that may be off; Refused if nothing of the segment is before it."""
        told = max((length_of(source, math.inf) for source in info['formats']), default=0)
        video = info.get('duration') or told or math.inf
        ends = [length_of(source, video) if is_direct(source) else measure(Path(source['url'])) for source in sources]
        end, slack = (min(ends), 0.0) if all(ends) else (video, 1.0)  # YouTube gives whole s for the video
        if end < min(segment.end, video - SHORT):
            raise Refused(f'every format with sound ends at {end:.3f} s, the video at {video} s')
        if segment.start + TOO_SHORT >= end + slack:
            raise Refused(f'the video ends at {end:.3f} s, {segment.start} s are wanted')
        return end, slack

    def download_whole(self, info: dict[str, Any], source: Source) -> Source:
        """Have yt-dlp download what ffmpeg cannot seek over the network, and index it for the cut; within `most`
        bytes."""
        from yt_dlp.downloader import get_suitable_downloader
        from yt_dlp.utils import DownloadError

        free = shutil.disk_usage(self.scratch).free // (4 * self.settings.num_processes)
        most, folder = min(LARGEST, free), Path(tempfile.mkdtemp(prefix='whole', dir=self.scratch))

        def watch(progress: dict[str, Any]) -> None:
            if (progress.get('downloaded_bytes') or 0) > most:
                raise Refused(f'download: more than {most / 1e6:.0f} MB for a video that only comes whole')

        ydl = self.asker.ydl(self.asker.may_be_cheap)
        ydl.params.pop('external_downloader_args', None)  # of the clip before
        downloader = get_suitable_downloader(source, ydl.params)(ydl, ydl.params)
        downloader.add_progress_hook(watch)
        got, indexed = folder / 'got', folder / ('source.mp4' if source.get('vcodec') != 'none' else 'source.m4a')
        try:
            downloader.download(str(got), {**info, **source})
        except DownloadError as error:
            raise Refused(f'download: {error}') from None
        self.run_ffmpeg_here('-i', str(got), '-map', '0:v?', '-map', '0:a?', '-c', 'copy', '-f', 'mp4', str(indexed))
        got.unlink(missing_ok=True)
        return {**source, 'url': str(indexed), 'protocol': 'file', 'manifest_stream_number': 0}

    def pad(self, made: Path, segment: Segment, duration: float) -> dict[str, float]:
        """Lengthen a short clip with silence, in a process of its own, for only now its length is known; what the
        record says."""
        length, exact = segment.nominal, self.settings.ext in ('wav', 'flac')
        if not self.settings.pad:
            return {}
        if duration >= length - (1e-5 if exact else self.tolerance):
            return {'padded': round(duration, 3)}
        padded = made.with_name(f'padded.{self.settings.ext}')
        silence = ['-af', f'apad=whole_dur={length}', *ENCODE[self.settings.ext], '-t', str(length)]
        self.run_ffmpeg_here('-i', str(made), *silence, str(padded))
        if abs((now := measure(padded)) - length) > self.tolerance:
            raise Refused(f'ffmpeg made {now:.3f} s instead of {length:.3f} s. {self.ffmpeg_words()}')
        os.replace(padded, made)
        return {'padded': round(now, 3)}

    def run_ffmpeg_here(self, *args: str) -> None:
        """An ffmpeg of our own over files of ours; what it makes is measured by the caller."""
        logged_popen(self.log)(
            [self.settings.ffmpeg, '-loglevel', 'error', '-y', *args], stdin=subprocess.DEVNULL
        ).wait()

    def run_ffmpeg(
        self, info: dict[str, Any], sources: list[Source], segment: Segment, flags: set[str], made: Path
    ) -> float:
        """One ffmpeg, started by yt-dlp, makes the final file; returns its duration (s)."""
        from yt_dlp.downloader.external import FFmpegFD
        from yt_dlp.utils import DownloadError

        lead, settings = lead_in(self.settings, segment, sources), self.settings
        inputs = [input_args(settings, segment, source, flags, lead) for source in sources]
        outputs = output_args(settings, segment, sources[-1].get('acodec') or '', lead)
        ydl = self.asker.ydl(self.asker.may_be_cheap)
        given = {f'ffmpeg_i{n}': args for n, args in enumerate(inputs, 1)}
        ydl.params['external_downloader_args'] = {**given, 'ffmpeg_o': outputs}
        asked = {**info, 'requested_formats': sources} if len(sources) > 1 else {**info, **sources[0]}
        try:
            FFmpegFD(ydl, ydl.params).download(str(made), asked)
        except DownloadError as error:
            raise Refused(f'ffmpeg: {self.ffmpeg_words() or error}') from None
        return measure(made)

    def ffmpeg_words(self) -> str:
        return self.log.read_text(encoding='utf-8', errors='replace')

    def fetch(self, task: Task) -> Result:
        """One clip, from the question to where it waits for its place in wavs/."""
        self.asker.begin(task)
        segment, path = task.segment, place(self.settings, task.segment)
        there = self.there(segment, path) if task.keep else 0.0
        if there and not self.settings.pad:  # how much of it is silence nobody knows
            return self.done(path, path, {'title': '', 'format_id': ''}, there)
        made = self.scratch / path.name
        try:
            info, cheap_failed = self.asker.ask_twice(segment)
            duration = self.cut(info, segment, made)
            padded = self.pad(made, segment, duration)
            ready = bring(made, self.settings.parts) if task.keep else made
            return self.done(path, ready, {**info, **padded}, duration)._replace(cheap_failed=cheap_failed)
        except Refused as refused:
            if there and refused.verdict == GONE:
                return self.done(path, path, {'title': '', 'format_id': ''}, there)
            raise
        finally:
            made.unlink(missing_ok=True)
            for whole in self.scratch.glob('whole*'):
                shutil.rmtree(whole, ignore_errors=True)

    def there(self, segment: Segment, path: Path) -> float:
        """Duration in s of a whole clip that is there without being in the ledger, else 0."""
        duration = measure(path) if path.exists() else 0.0
        return duration if abs(duration - (segment.end - segment.start)) <= self.tolerance else 0.0

    def done(self, path: Path, made: Path, info: dict[str, Any], duration: float) -> Result:
        known = {
            name: info[name] for name in ('title', 'format_id', 'language', 'padded') if info.get(name) is not None
        }
        known['duration'] = round(duration, 3)
        place = {'path': path.relative_to(self.settings.root).as_posix(), 'ext': self.settings.ext}
        record = {
            **place,
            **known,
            'bytes': made.stat().st_size,
            'sha256': hashlib.sha256(made.read_bytes()).hexdigest(),
        }
        return Result(
            self.asker.task.segment,
            DONE,
            DONE,
            record=record,
            made='' if made == path or not self.asker.task.keep else str(made),
        )


worker: Worker | None = None  # of this process, once the pool has opened it


def open_worker(*given: Any) -> None:
    """The beginning of a worker process, a group of its own with its ffmpegs. The parent alone decides about a
    Ctrl-C."""
    global worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, 'setpgid'):
        os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, end_at_once)
    if hasattr(signal, 'pthread_sigmask'):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)
    worker = Worker(*given)
    threading.Thread(target=end_with_parent, args=[worker.scratch], daemon=True).start()


def fetch(task: Task) -> Result:
    """The worker's edge: whatever happens comes back as a Result."""
    try:
        return worker.fetch(task)
    except Refused as refused:
        no = refused
    except OSError as error:  # of the disk, or of a connection that yt-dlp did not expect to break
        no = Refused(str(error))
    except Exception as error:  # the one place for what nobody expected; its traceback is shown and kept
        words = hide(f'{type(error).__name__}: {error}\n{traceback.format_exc()}')
        no = Refused('')
        no.reason, no.verdict, no.words = 'unexpected', FAILED, words
    doubted = worker.asker.doubted
    there = no.reason == 'no format' and doubted and doubted.reason in ('unavailable', 'drm')  # if without addresses
    if doubted and no.reason in VAGUE and doubted.reason not in VAGUE and not there:
        no = doubted  # its answer was the better one
    return Result(task.segment, no.verdict, no.reason, no.words)


# ------------------------------------------------------------------------------------------------------------- pace
HOUR = 3600  # s
RATE_LIMIT = 1800  # s of the first pause where YouTube speaks of a rate limit, which lasts up to an hour
SHARE = 0.9  # of what came through before a refusal: what a route keeps to after it
LEAST = 100  # rows an hour that it keeps to at least; fewer than these in an hour tell nothing of its limit
BACK = 0.3  # days in which it makes half the way back to the rate that was refused
DAILY = 0.005  # by how much it grows in a day on top of that, in two days by four times as much
SUSPECT = ('unavailable', 'drm')  # reasons of gone rows that may be an answer to everything that a route asks
FEW = 4  # of such answers or failures in a row, without a clip between them, until a known clip is asked
ELSEWHERE = 3  # routes that have to say "not in your country", if there are as many
CLOSINGS = 4  # refusals that a row was the first to meet; with the next one it may be the row
MISSES = 5  # in a row until the cheap request is given up


def clock(at: float, now: float) -> str:
    """A time of day, with the date if it is another day's."""
    today = time.localtime(at)[:3] == time.localtime(now)[:3]
    return time.strftime('%H:%M:%S' if today else '%Y-%m-%d %H:%M:%S', time.localtime(at))


class Learned(NamedTuple):
    """What a route has learned of YouTube's limit."""

    budget: float  # rows an hour that it kept to at first
    refused: float  # rows an hour that were too many
    at: float  # when that was

    def rate(self, now: float) -> float:
        """Rows an hour by now: back to what was refused within hours, beyond it within days."""
        days = max(0, now - self.at) / DAY
        return self.refused * (1 + DAILY * days**2) - (self.refused - self.budget) * 0.5 ** (days / BACK)


class Budget:
    """When the next row may start on a route: at once, but evenly spread after YouTube has refused."""

    def __init__(self, per_hour: int | None, learned: Learned | None) -> None:
        self.per_hour, self.learned, self.next = per_hour, learned, 0.0  # per_hour: the user's own ceiling
        self.starts = deque[float](maxlen=per_hour or 0)
        self.passes = deque[float]()  # when the rows of the last hour started that YouTube answered
        self.refused = set[str]()  # rows that were, since it learned

    def due(self) -> float:
        return max(self.next, self.starts[0] + HOUR if len(self.starts) == self.per_hour else 0)

    def rate(self, now: float) -> float:
        """Rows an hour; inf: as many as it takes."""
        return min(self.per_hour or math.inf, self.learned.rate(now) if self.learned else math.inf)

    def start(self, now: float) -> None:
        self.starts.append(now)
        interval = HOUR / self.learned.rate(now) if self.learned else 0
        self.next = max(self.next, now - interval) + interval

    def passed(self, at: float, until: float) -> None:
        """Count a row that came through, and forget those of more than an hour before."""
        self.passes.append(at)
        while self.passes and self.passes[0] < until - HOUR:
            self.passes.popleft()

    def learn(self, refused: float, now: float) -> None:
        """Keep below what came through in the hour before the refusal, or in less if YouTube answers sooner. A
        refusal of one row alone teaches nothing: it may have been the row."""
        rows, self.refused = self.refused, set()
        if len(rows) < 2 or not self.passes:
            return
        count, first = len(self.passes), self.passes[0]
        granted = count * HOUR / min(HOUR, max(1, now - first))
        hourly = now - first >= HOUR and count >= LEAST  # else too fast was the burst, not the hour
        too_many = granted if hourly else count * HOUR / max(1, refused - first)
        budget = max(SHARE * granted, LEAST, self.learned.rate(now) / 2 if self.learned else 0)
        self.learned = Learned(budget, max(budget, too_many), now)


Settle = Callable[[Result], None]


class Backlog:
    """The rows that wait for their turn, new ones and those that come back, and clips that are known to come."""

    def __init__(self, settings: Settings, routes: Mapping[str, Any], rows: Iterable[Segment], settle: Settle) -> None:
        self.settings, self.routes, self.rows, self.settle = settings, routes, iter(rows), settle
        self.ahead = next(self.rows, None)  # the next new one
        self.waiting: list[tuple[float, Segment]] = []  # sorted by when they are due
        self.known = deque[Segment](maxlen=10)  # the last is asked first
        self.worked = False  # a clip came, or YouTube spoke of a known one

    def new(self) -> Segment | None:
        row, self.ahead = self.ahead, next(self.rows, None)
        return row

    def find(self, route: str) -> int | None:
        """The place of the first row that this route may ask for: it has not yet, or all have."""
        may = (route not in row.nowhere or row.nowhere >= self.routes.keys() for _, row in self.waiting)
        return next((n for n, allowed in enumerate(may) if allowed), None)

    def old(self, route: str, now: float = math.inf) -> Segment | None:
        n = self.find(route)
        return self.waiting.pop(n)[1] if n is not None and self.waiting[n][0] <= now else None

    def probe(self, route: str, nth: int) -> Segment | None:
        """To try a closed route: in turn a row, best a new one, of which nothing bad is known, and a known clip."""
        if not self.ahead and self.find(route) is None:
            return None
        if self.known and nth % 2:
            return self.known[-1]
        row = self.new() or self.old(route)
        if row and row.nowhere and nth > 2:  # a route that may be dead is not waited for
            words = 'not shown in that of one route, and others do not answer'
            self.settle(Result(row, FAILED, 'country', words))
            return None
        return row

    def wait(self, row: Segment, due: float) -> None:
        bisect.insort(self.waiting, (due, row), key=lambda waiting: waiting[0])

    def give_back(self, results: Iterable[Result], now: float) -> None:
        """It was the weather: nothing is held against these rows."""
        for result in results:
            self.wait(result.segment._replace(unproven=result.verdict == GONE), now)

    def conclude(self, result: Result, route: str, now: float) -> None:
        """Settle a row, but for a failure that may pass and a country that may be the route's."""
        row, died, due = result.segment, result.reason == DIED, now
        if result.reason == 'country' and result.verdict == GONE:
            row = row._replace(nowhere=row.nowhere | {route})
            enough = len(row.nowhere) >= min(ELSEWHERE, len(self.routes))
        elif result.verdict in ANSWERS:
            enough = True
        else:
            enough = row.deaths >= 2 if died else row.tries >= self.settings.retries
            due += self.settings.retry_pause * 2**row.tries * random.uniform(0.75, 1.25)
            row = row._replace(deaths=row.deaths + died, tries=row.tries + 1, cheap=result.reason != 'media 403')
        self.settle(result) if enough else self.wait(row, due)

    def see(self, task: Task, result: Result) -> None:
        """Keep the clips that came last. One that no longer comes is forgotten, in weather it waits behind others."""
        self.worked |= result.verdict == DONE or (result.verdict in ANSWERS and not task.keep)
        if task.keep and result.verdict == DONE:
            self.known.append(task.segment)
        elif not task.keep and result.verdict != DONE and task.segment in self.known:
            self.known.remove(task.segment)
            if result.verdict in (DOUBT, THROTTLED):
                self.known.appendleft(task.segment)


class Route:
    """A way to YouTube: open or closed, and what its results say, of their rows or of the weather."""

    def __init__(self, name: str, settings: Settings, backlog: Backlog, learned: Learned | None) -> None:
        self.name, self.settings, self.backlog = name, settings, backlog
        self.label = '' if name == 'direct' else f'{name}: '
        self.budget = Budget(settings.per_hour, learned)
        self.flying, self.last, self.probes = 0, 0.0, 0  # rows in flight; when one started last; probes since it closed
        self.why: Result | None = None  # what closed it
        self.since, self.until, self.pause = 0.0, 0.0, 0.0  # open or closed since; closed until; the pause, s
        self.cheap, self.misses = True, 0  # misses: what only the full extraction brought, since a cheap request did
        self.held: list[tuple[float, Result]] = []  # failures, and gone rows without proof, with the time

    def due(self) -> float:
        """When a row may start; inf: not before the one in flight is back."""
        pause = 0 if not self.why else math.inf if self.flying else self.until
        return max(pause, self.budget.due())

    def start(self, row: Segment, now: float, control: bool) -> Task:
        probe = control or bool(self.why)
        self.flying, self.last, self.probes = self.flying + 1, now, self.probes + probe
        self.budget.start(now)
        return Task(row, self.name, row.cheap and self.cheap and not probe, probe, not control, now)

    def release(self) -> list[Result]:
        held, self.held = self.held, []
        return [result for _, result in held]

    def close(self, result: Result, now: float) -> None:
        """Let nothing start for a pause that doubles each time, and give back the rows held: it was not them."""
        self.pause = max(RATE_LIMIT if result.reason == 'rate limit' else self.settings.pause, 2 * self.pause)
        self.until = now + min(self.pause * random.uniform(0.8, 1.2), self.settings.longest_pause)
        if not self.why:
            self.since, self.probes = now, 0
        if not self.why or result.reason != self.why.reason:
            refused = result.verdict == THROTTLED
            what, remedy = ('YouTube refuses us', f'; {REMEDY}') if refused else ('every row fails', '')
            words = textwrap.shorten(result.words, 140, placeholder=' …')
            say(f'{self.label}{what} ({words}); one row tries again at {clock(self.until, now)}{remedy}')
        self.why = result
        self.backlog.give_back(self.release(), now)

    def open(self, now: float) -> None:
        if self.why.verdict == THROTTLED:
            self.miss(2)  # the probe asked in full
        self.budget.learn(self.since, now)
        rate = self.budget.rate(now)
        pace = f'; from now on {rate:.0f} rows an hour' if rate < math.inf else ''
        say(f'{self.label}YouTube answers again{pace}')
        self.why, self.pause, self.since, self.budget.next = None, 0, now, now

    def miss(self, weight: int) -> None:
        """Give the cheap request up when it keeps failing where the full extraction succeeds."""
        self.misses += weight
        if self.cheap and self.misses >= MISSES:
            self.cheap = False
            say(f'{self.label}the cheap request keeps failing where the full one succeeds: going on with the full one')

    def see(self, task: Task, result: Result, now: float) -> None:
        """Settle what is sure by now, hold what is not, and give back what is not the rows' own."""
        if result.verdict in ANSWERS:
            self.budget.passed(task.at, self.since if self.why else now)
            if self.why and task.probe and (result.verdict == DONE or self.why.verdict == THROTTLED):
                self.open(now)
        if result.verdict == DONE:
            self.prove(task, result, now)
        if result.reason != DIED and (result.verdict not in ANSWERS or result.reason in SUSPECT):
            self.doubt(task, result, now)
        elif task.keep:
            self.backlog.conclude(result, self.name, now)

    def prove(self, task: Task, result: Result, now: float) -> None:
        """A clip came: what is held was the rows' own. One says so of one, one that was asked to tell of all."""
        if result.cheap_failed or not task.segment.cheap:
            self.miss(1)
        elif task.cheap:
            self.misses = 0
        before = sum(at <= task.at for at, _ in self.held)
        sure = before if task.probe else min(before, 1)
        proven, self.held = self.held[:sure], self.held[sure:]
        for _, held in proven:
            self.backlog.conclude(held, self.name, now)

    def doubt(self, task: Task, result: Result, now: float) -> None:
        """It may be the row's own, or the weather."""
        if result.verdict == THROTTLED:
            self.budget.refused.add(result.segment.id)
            row = result.segment._replace(refusals=result.segment.refusals + (task.keep and not self.why))
            at_fault = row.refusals > CLOSINGS  # alone, time and again
            result = result._replace(segment=row, verdict=DOUBT if at_fault else THROTTLED)
        if result.verdict != THROTTLED and task.keep and not self.why:
            self.held.append((now, result))
            return
        if task.probe if self.why else result.verdict != FAILED:
            self.close(result, now)
        untold = task.probe and self.backlog.worked and not (self.backlog.known or self.backlog.ahead)
        if task.keep and untold:  # nothing is left that could tell its own failure from weather
            self.backlog.conclude(result._replace(verdict=FAILED), self.name, now)
        elif task.keep:
            self.backlog.give_back([result], now)


class Pace:
    """What starts next and what comes of it. `known`: clips that are there already; `learned`: by an earlier run."""

    def __init__(self, settings: Settings, routes: Iterable[str], rows: Iterable[Segment], settle: Settle,
                 known: Iterable[Segment] = (), learned: Mapping[str, Learned] | None = None) -> None:  # fmt: skip
        self.settings, self.former, self.routes = settings, learned or {}, dict[str, Route]()
        self.backlog = Backlog(settings, self.routes, rows, settle)
        self.backlog.known.extend(known)
        self.enough = max(10, 2 * settings.num_processes)  # failures in a row, without a known clip, that end the run
        self.stop = ''  # why the run ends early
        for name in routes:
            self.add(name)

    def add(self, name: str) -> None:
        self.routes[name] = Route(name, self.settings, self.backlog, self.former.get(name))

    def remove(self, name: str, now: float) -> None:
        self.backlog.give_back(self.routes.pop(name).release(), now)

    @property
    def over(self) -> bool:
        routes = self.routes.values()
        left = self.backlog.ahead or self.backlog.waiting or any(route.held for route in routes)
        return bool(self.stop or not left) and not any(route.flying for route in routes)

    @property
    def learned(self) -> dict[str, Learned]:
        """What the routes have learned, for the ledger."""
        return {name: route.budget.learned for name, route in self.routes.items() if route.budget.learned}

    def give_up(self, now: float) -> None:
        """End the run where every route is closed, and has been for long or will tell nothing."""
        last, backlog = max(self.routes.values(), key=lambda route: route.since), self.backlog
        if 0 < self.settings.give_up_after <= (silence := now - last.since):
            self.stop = self.stop or f'nothing came through for {silence:.0f} s ({last.why.words})'
        untold = backlog.waiting and not (backlog.ahead or backlog.known or any(r.flying for r in self.routes.values()))
        if untold and all(row.unproven for _, row in backlog.waiting):
            words = f'every row is gone ({last.why.words}), and there is no clip to compare with'
            self.stop = self.stop or f'{words}; try another time'

    def next(self, now: float, free: Collection[str] | None = None) -> Task | None:
        """The task to start now, if any, on the least busy of the routes that have a free place."""
        if self.routes and all(route.why for route in self.routes.values()):
            self.give_up(now)
        routes = [route for name, route in self.routes.items() if free is None or name in free]
        for route in sorted(routes, key=lambda route: (route.flying, route.last)):
            if not self.stop and route.due() <= now and (row := self.pick(route, now)):
                return route.start(row, now, control=any(row is known for known in self.backlog.known))
        return None

    def pick(self, route: Route, now: float) -> Segment | None:
        """A row; where too many fail or nothing else is left, a known clip, to tell failures from weather."""
        if route.why:
            return self.backlog.probe(route.name, route.probes)
        backlog, held = self.backlog, route.held
        last = held[-1][1] if held else None
        places = max(2, self.settings.num_processes // len(self.routes))
        doubtful = last and last.verdict == DOUBT
        full = len(held) >= (FEW if backlog.known else places if doubtful else self.enough)
        row = None if full else backlog.old(route.name, now) or backlog.new()
        if row or route.flying or not last:
            return row
        if backlog.known:
            return backlog.known[-1]
        if doubtful and len(held) > 1 and (full or not backlog.worked):  # it will not be each of these rows
            route.close(last, now)
        elif full:
            words = f'{len(held)} rows failed one after the other ({last.words})'
            self.stop = f'{words}; update yt-dlp, check the settings'
        else:
            for result in route.release():
                backlog.conclude(result._replace(verdict=FAILED), route.name, now)
        return None

    def see(self, task: Task, result: Result | None, now: float) -> None:
        """Learn what became of a task. None: nobody has tried it, or its node has left."""
        route = self.routes.get(task.route)
        if route:
            route.flying = max(0, route.flying - 1)
        if not route or not result:
            if task.keep:
                self.backlog.wait(task.segment, now)
        elif result.verdict == STOP:
            self.stop = f'{result.words}; mend that'
        else:
            self.backlog.see(task, result)
            route.see(task, result, now)

    def knock(self, now: float) -> None:
        """Have every closed route tried at once: something has changed."""
        for route in self.routes.values():
            route.until = min(route.until, now)


def weather(pace: Pace, now: float) -> str:
    """What holds the run up, and until when; empty if nothing does."""
    routes = pace.routes.values()
    if closed := sorted((route for route in routes if route.why), key=lambda route: route.until):
        count = f'{len(closed)} of {len(routes)} routes: ' if len(routes) > 1 else ''
        until = 'trying' if closed[0].flying else f'next try {clock(closed[0].until, now)}'
        return f'{count}{closed[0].why.reason}, {until}'
    due, rate = min((route.due() for route in routes), default=0), sum(route.budget.rate(now) for route in routes)
    return f'{rate:.0f} rows an hour, the next at {clock(due, now)}' if due > now and rate < math.inf else ''


# -------------------------------------------------------------------------------------------------------------- pool
ENDINGS = [getattr(signal, name) for name in ('SIGINT', 'SIGTERM', 'SIGHUP') if hasattr(signal, name)]
PRELOAD = ['yt_dlp.extractor.youtube', 'yt_dlp.downloader.external', 'mutagen.mp4', 'tqdm', 'pebble']
FRESH = 1000  # clips after which a process makes room for a fresh one
tqdm.monitor_interval = 0  # no thread of its own, which would take the signals that we hold back


@contextlib.contextmanager
def no_interrupts() -> Iterator[None]:
    """Hold what ends us back; processes and threads that start meanwhile inherit that."""
    masks = hasattr(signal, 'pthread_sigmask')
    if masks:
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS)
    try:
        yield
    finally:
        if masks:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)


def processes_here() -> int:
    """How many clips to have in flight on the cores that we may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    return min(4 * cores, 32)


def start_method() -> Any:
    """How processes are started: where the system can, as forks of one that begins to load yt-dlp now."""
    if 'forkserver' in multiprocessing.get_all_start_methods():
        from multiprocessing import forkserver, resource_tracker

        forkserver.set_forkserver_preload(PRELOAD)
        resource_tracker.ensure_running()  # it would let interrupts in again
        with contextlib.suppress(OSError), no_interrupts():  # the temp folder's name may be too long for a socket
            forkserver.ensure_running()
            return multiprocessing.get_context('forkserver')
    return multiprocessing.get_context('spawn')


def check_files(processes: int) -> None:
    """Have room for the files that so many processes need, or say that there is none."""
    with contextlib.suppress(ImportError):  # Windows has no such limit
        import resource

        needed, (soft, hard) = 40 + 8 * processes, resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY or soft >= needed:
            return
        wrong = f'num_processes = {processes}: needs {needed} open files, {hard} are allowed (ulimit -n)'
        require(hard == resource.RLIM_INFINITY or needed <= hard, wrong)
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


class Pool:
    """The processes of this machine: one that dies, or takes too long for a clip, fails its own task only."""

    def __init__(self, settings: Settings) -> None:
        settings.num_processes = settings.num_processes or processes_here()
        check_files(settings.num_processes)
        self.settings, self.flying = settings, 0
        http_flags = find_ffmpeg(settings)
        settings.parts.mkdir(parents=True, exist_ok=True)
        self.scratch = tempfile.TemporaryDirectory('', settings.run_prefix, settings.temps, ignore_cleanup_errors=True)
        self.given, self.context = (settings, Path(self.scratch.name), http_flags), start_method()
        self.pool = self.make()

    def make(self) -> pebble.ProcessPool:
        """Its processes start with the first task."""
        return pebble.ProcessPool(self.settings.num_processes, FRESH, open_worker, self.given, self.context)

    def look(self, pace: Pace, now: float) -> None:
        """What a cluster has to do now and then."""

    def free(self) -> Collection[str]:
        """The routes by which a task may start now."""
        return self.settings.routes if self.flying < self.settings.num_processes else ()

    def submit(self, task: Task) -> concurrent.futures.Future:
        self.flying += 1
        asked = task._replace(proxy=self.settings.routes[task.route], cookies=self.settings.cookies)
        with no_interrupts():
            if not self.pool.active:  # one died with the lock of all
                self.end()
                self.pool = self.make()
            return self.pool.schedule(fetch, args=[asked], timeout=self.settings.clip_timeout)

    def result(self, task: Task, future: concurrent.futures.Future) -> Result | None:
        """What became of a task; None if nobody has tried it."""
        self.flying -= 1
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            return None
        except concurrent.futures.TimeoutError:
            late = Refused(f'not done within {self.settings.clip_timeout} s')
            return Result(task.segment, late.verdict, late.reason, late.words)
        except pebble.ProcessExpired as died:
            say(f'a worker died (exit code {died.exitcode}) over {task.segment.ytid}; another one goes on')
            return Result(task.segment, FAILED, DIED, f'its process ended (exit code {died.exitcode})')

    def end(self) -> None:
        """End all processes and their ffmpegs at once, also those that sleep."""
        self.pool.stop()
        joining = threading.Thread(target=self.pool.join, daemon=True)
        joining.start()
        while joining.is_alive() or multiprocessing.active_children():  # until it starts no others
            for process in multiprocessing.active_children():
                with contextlib.suppress(AttributeError, ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.kill()
            joining.join(0.05)

    def close(self) -> None:
        with no_interrupts():
            self.end()
            self.scratch.cleanup()
            shutil.rmtree(self.settings.parts, ignore_errors=True)
            with contextlib.suppress(OSError):  # other shards have theirs there
                self.settings.parts.parent.rmdir()


# ----------------------------------------------------------------------------------------------------------- cluster
def connect() -> Any:
    """Ray, connected to the cluster of RAY_ADDRESS, to the one that runs here, or to a new one of this machine."""
    import socket

    import ray
    import ray.util.scheduling_strategies

    address = os.environ.get('RAY_ADDRESS', '')
    host, _, port = address.rpartition(':')
    handlers = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}
    say('connecting to Ray ...')
    try:
        if host and port.isdecimal():  # else Ray tries for minutes, deaf to Ctrl-C
            socket.create_connection((host, int(port)), 5).close()
        ray.init(logging_level='CRITICAL', log_to_driver=False)
        say(f'Ray: {len(ray.nodes())} nodes, coordinated by {ray.get_runtime_context().gcs_address}')
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        raise UsageError(f'ray: {" ".join(str(error).split())[:300]} (RAY_ADDRESS={address})') from None
    finally:
        for name, handler in handlers.items():
            signal.signal(name, handler)
    return ray


class RemoteFetcher:
    """What works on a node, where this script need not be: a pool over a root of its own. Plain tuples come and go."""

    def __init__(self, source: str, settings: Settings) -> None:
        self.home = tempfile.TemporaryDirectory(prefix='audioset-', ignore_cleanup_errors=True)
        settings.root = self.home.name
        Path(settings.root, 'download.py').write_text(source, encoding='utf-8')
        sys.path.insert(0, settings.root)
        vars(sys.modules['__main__']).pop('__file__', None)  # Ray's, which each process would load
        self.script = importlib.import_module('download')
        self.script.open_root(settings)
        self.script.open_routes(settings)
        self.pool = self.script.Pool(settings)

    def places(self) -> int:
        return self.pool.settings.num_processes

    def fetch(self, segment: tuple, cookies: str, *task: Any) -> tuple[tuple, bytes]:
        """The fields of a result but for its segment, and the bytes of its clip."""
        self.pool.settings.cookies = cookies
        asked = self.script.Task(self.script.Segment(*segment), *task)
        result = self.pool.result(asked, self.pool.submit(asked))
        clip = Path(result.made).read_bytes() if result.made else b''
        if result.made:
            os.unlink(result.made)
        return result[1:], clip

    def close(self) -> None:
        self.pool.close()
        self.home.cleanup()


class Node:
    """What the driver knows of a node: its actor, if it has one, and how it fares."""

    actor: Any = None
    ready: concurrent.futures.Future | None = None  # of the number of its places for clips
    places, failures = 0, 0  # failures: times in a row that it was lost
    broken = ''  # why its actor cannot go on

    def __init__(self, id: str, address: str) -> None:
        self.id, self.name = id, f'node {address} ({id[:4]})'
        self.tasks = dict[concurrent.futures.Future, float]()  # with the times of their starts


class Cluster:
    """The nodes of a Ray cluster, each a route, or one by each proxy; the tasks of one that is lost go back."""

    LOOK, ENOUGH = 5, 4  # s between looks for nodes; failures in a row

    def __init__(self, settings: Settings) -> None:
        self.settings, self.looked = settings, 0.0
        self.nodes, self.ways = dict[str, Node](), dict[str, tuple[Node, str]]()  # ways: name -> node and its route
        self.given = argparse.Namespace(**{**vars(settings), 'cookie_path': 'cookies.txt', 'routes': {}})
        settings.num_processes = settings.num_processes or processes_here()  # nodes find out for themselves
        settings.parts.mkdir(parents=True, exist_ok=True)
        self.ray = connect()

    def look(self, pace: Pace, now: float) -> None:
        """Use the nodes that are ready, lose those that cannot go on, and look for others now and then."""
        if now - self.looked >= self.LOOK:
            self.looked = now
            self.find_nodes(now)
        for node in self.nodes.values():
            if node.ready and node.ready.done():
                self.welcome(node, pace)
            if node.actor and node.broken:
                self.lose(node, pace, now)

    def find_nodes(self, now: float) -> None:
        found = {one['NodeID']: one for one in self.ray.nodes() if one['Alive'] and one['Resources'].get('CPU')}
        for id in found.keys() - self.nodes.keys():
            self.nodes[id] = Node(id, found[id]['NodeManagerAddress'])
        patience = 2 * self.settings.clip_timeout + 10  # s
        for node in self.nodes.values():
            if node.id not in found:
                node.broken, node.failures = 'it has left', self.ENOUGH
            elif now - min(node.tasks.values(), default=now) > patience:
                node.broken = f'silent for {patience:.0f} s'
            elif not node.actor and node.failures < self.ENOUGH:
                self.start(node)

    def start(self, node: Node) -> None:
        there = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node.id, soft=False)
        remote = self.ray.remote(num_cpus=1, max_concurrency=64, scheduling_strategy=there)(RemoteFetcher)
        node.actor = remote.remote(Path(__file__).read_text(encoding='utf-8'), self.given)
        node.ready, node.broken = node.actor.places.remote().future(), ''

    def welcome(self, node: Node, pace: Pace) -> None:
        ready, node.ready = node.ready, None
        try:
            node.places = ready.result()
        except self.ray.exceptions.RayError as error:
            node.broken = str(error)
            return
        say(f'{node.name}: ready, {node.places} places')
        for route in self.settings.routes:
            way = node.name if len(self.settings.routes) == 1 else f'{node.name} by {route}'
            self.ways[way] = node, route
            pace.add(way)

    def lose(self, node: Node, pace: Pace, now: float) -> None:
        """A node is gone, or cannot go on; it is started again unless that failed too often."""
        words = textwrap.shorten(node.broken.strip().rpartition('\n')[2], 120)
        say(f'{node.name}: lost ({words}), {len(node.tasks)} rows come back')
        self.ray.kill(node.actor)
        node.actor, node.ready, node.failures = None, None, node.failures + 1
        node.tasks.clear()
        for way, (of, _) in self.ways.items():
            if of is node and way in pace.routes:
                pace.remove(way, now)
        if all(other.failures >= self.ENOUGH and not other.actor for other in self.nodes.values()):
            pace.stop = f'no node can go on ({words})'

    def free(self) -> Collection[str]:
        return [way for way, (node, _) in self.ways.items() if node.actor and len(node.tasks) < node.places]

    def submit(self, task: Task) -> concurrent.futures.Future:
        node, route = self.ways[task.route]
        segment, *how = task._replace(route=route)
        future = node.actor.fetch.remote(tuple(segment), self.settings.cookies, *how).future()
        node.tasks[future] = task.at
        return future

    def result(self, task: Task, future: concurrent.futures.Future) -> Result | None:
        """What became of a task, its clip on our disk; None if its node was lost."""
        node, _ = self.ways[task.route]
        ours = node.tasks.pop(future, None)  # not of an actor that was lost before
        try:
            fields, clip = future.result()
        except self.ray.exceptions.RayError as error:
            node.broken = str(error) if ours else node.broken
            return None
        node.failures, result = 0, Result(task.segment, *fields)
        if not clip:
            return result
        made = self.settings.parts / f'{task.segment.id}.{self.settings.ext}'
        made.write_bytes(clip)
        return result._replace(made=str(bring(made, self.settings.parts)))

    def close(self) -> None:
        if closing := [node.actor.close.remote() for node in self.nodes.values() if node.actor]:
            self.ray.wait(closing, num_returns=len(closing), timeout=3)
        self.ray.shutdown()
        shutil.rmtree(self.settings.parts, ignore_errors=True)


# -------------------------------------------------------------------------------------------------------------- run


def short_of_space(settings: Settings) -> str:
    """Whether the disk has no room for what is in flight and for the metadata; '' if it has."""
    clips = (settings.num_processes + 2) * clip_size(settings)
    needed = {settings.temps: clips, settings.wavs: clips, settings.root: 3 * settings.ledger.stat().st_size}
    for folder, size in needed.items():
        if (free := shutil.disk_usage(folder).free) < size:
            return f'only {free / 1e6:.1f} MB are free in {folder}; make room'
    return ''


def fetch_all(settings: Settings, pace: Pace, pool: Pool | Cluster, tick: Callable[[str], None]) -> str:
    """Have rows fetched as the pace allows and the pool has places; returns why that ended early, '' if it did not."""
    flying, grace = dict[concurrent.futures.Future, Task](), math.inf
    while (flying or not pace.over) and time.monotonic() < grace:
        pace.stop = pace.stop or short_of_space(settings)
        if pace.stop and grace == math.inf:
            grace = time.monotonic() + 3  # s for what is almost done
        if renew_cookies(settings):
            pace.knock(time.time())
        pool.look(pace, time.time())
        while free := pool.free():
            task = pace.next(time.time(), free)
            if not task:
                break
            flying[pool.submit(task)] = task
        done, _ = concurrent.futures.wait(flying, 0.2, concurrent.futures.FIRST_COMPLETED)
        if not flying:
            time.sleep(0.05)
        for future in done:
            task = flying.pop(future)
            pace.see(task, pool.result(task, future), time.time())
        tick(weather(pace, time.time()))
    return pace.stop


# -------------------------------------------------------------------------------------------------------------- show


PLAIN = '{desc}{n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]'  # in tqdm's language


class Progress:
    """A bar over all rows of the run on a terminal, a plain line now and then elsewhere; counts by status and
    reason."""

    EVERY = 10  # s between plain lines

    def __init__(self, job: Job) -> None:
        self.job, self.results, self.before = job, Counter[tuple[str, str]](), Counter[tuple[str, str]]()
        self.total, self.counted, self.counts = job.read, False, Counter[tuple[str, str]]()  # counts: when it was asked
        self.examples: dict[str, str] = {}
        self.spoke, self.followed, self.terminal = time.monotonic(), 0.0, sys.stderr.isatty()  # s
        shape = {'dynamic_ncols': True} if self.terminal else {'bar_format': PLAIN, 'file': open(os.devnull, 'w')}  # noqa: SIM115
        self.bar = tqdm(total=self.total, unit='clip', miniters=1, **shape)

    def look(self) -> None:
        """Ask the ledger, once all lists are read: how many rows there are, and what is settled since before this
        run."""
        self.counted, self.counts = True, self.job.counts()
        self.total = self.counts.total()
        self.before = Counter({key: n for key, n in (self.counts - self.results).items() if key[0] in (DONE, GONE)})
        self.bar.n, self.bar.initial = self.bar.n + self.before.total(), self.before.total()
        self.follow()

    def follow(self) -> None:
        """Show the counts."""
        self.bar.set_postfix({status: self.count(status) for status in (DONE, GONE, FAILED)}, refresh=False)
        self.bar.total = self.total if self.counted else self.job.read

    def count(self, status: str) -> int:
        return sum(n for (of, _), n in (self.before + self.results).items() if of == status)

    def update(self, result: Result) -> None:
        self.results[result.status, '' if result.verdict == DONE else result.reason] += 1
        self.examples.setdefault(result.reason, f'{result.segment.ytid}: {result.message}')
        self.bar.update()
        if not self.terminal and time.monotonic() - self.spoke > self.EVERY:
            self.spoke = time.monotonic()
            self.follow()
            say(str(self.bar))

    def tell(self, weather: str) -> None:
        """Show what is going on, and that something is: the clock goes on while nothing comes back."""
        new, now = weather != self.bar.desc.removesuffix(': '), time.monotonic()
        if now - self.followed > 0.1:
            self.followed = now
            self.follow()
        if weather or new:
            self.bar.set_description(weather, refresh=new or time.time() - self.bar.last_print_t > 1)
        if new and 'next' in weather and not self.terminal:
            say(str(self.bar))

    def table(self, counts: Counter[tuple[str, str]]) -> str:
        """What became of the rows, by status and reason, with one example of each new reason."""
        lines = []
        for status in (DONE, GONE, FAILED):
            lines.append(f'{status:<16}{sum(n for (of, _), n in counts.items() if of == status):>9}')
            for (of, reason), n in counts.most_common():
                if of == status != DONE:
                    lines.append(f'  {reason:<14}{n:>9}  {self.examples.get(reason, "")[:110]}'.rstrip())
        lines.append(f'{"not tried":<16}{counts["", ""]:>9}')
        skipped = self.job.skipped
        return '\n'.join([*lines, *([f'{"rows skipped":<16}{skipped:>9}'] if skipped else [])])


def rows_left(counts: Counter[tuple[str, str]]) -> int:
    """Rows that are not settled yet."""
    return sum(n for (status, _), n in counts.items() if status not in (DONE, GONE))


# -------------------------------------------------------------------------------------------------------------- main


NONE = type(None)
KINDS: dict[str, tuple[type, ...]] = {
    'int | None': (int, NONE), 'str | None': (str, NONE), 'float': (int, float),
    'int': (int,), 'str': (str,), 'bool': (bool,), 'list[str]': (list,), 'dict': (dict,),
}  # fmt: skip
CHOICES = {'ext': list(ENCODE), 'preset': ['', *PRESETS], 'engine': ['multiprocessing', 'ray']}


class Setting(NamedTuple):
    """A global of the settings block, as its source shows it."""

    group: str  # the comment above
    name: str
    kind: str  # a key of KINDS
    about: str  # the comment behind


def read_block(source: str) -> list[Setting]:
    """The settings: the lower-case globals above the first constant, however they are laid out."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token for token in tokens if token.type == tokenize.COMMENT}
    found, group, after = list[Setting](), '', 0
    for node in ast.parse(source).body:
        targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, 'targets', [None])
        target = targets[0]
        if isinstance(target, ast.Name) and not target.id.islower():
            break
        own = [
            line
            for line in range(after + 1, node.lineno)
            if line in comments and not comments[line].string.startswith('# -')
        ]
        group = comments[own[-1]].string[2:] if own and found or own and target else group
        if isinstance(target, ast.Name):
            about = ' '.join(
                comments[n].string.lstrip('# ') for n in range(node.lineno, node.end_lineno + 1) if n in comments
            )
            kind = ast.unparse(node.annotation) if isinstance(node, ast.AnnAssign) else ''
            default = type(globals().get(target.id))
            plain = next((name for name, types in list(KINDS.items())[2:] if default in types), 'int | None')
            found.append(Setting(group, target.id, kind if kind in KINDS else plain, about))
        after = node.end_lineno or 0
    return found


def number_or_json(text: str) -> Any:
    try:
        return json.loads('null' if text.lower() == 'none' else text)
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} is neither a number nor JSON') from None


def read_flag(setting: Setting) -> dict[str, Any]:
    """How argparse is to read the flag of a setting."""
    if setting.kind == 'bool':
        return {'action': argparse.BooleanOptionalAction}
    if setting.kind == 'list[str]':
        return {'nargs': '*', 'metavar': 'NAME'}
    if setting.kind == 'str | None':
        return {'nargs': '?', 'const': '', 'metavar': 'FILE'}
    choices = CHOICES.get(setting.name, [])
    name = '{' + ','.join(filter(None, choices)) + '}' if choices else setting.kind.split()[0].upper()
    return {'type': str if setting.kind == 'str' else number_or_json, 'metavar': name}


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f'{message} (see --help)')


def read_settings(argv: list[str] | None) -> Settings:
    """The globals of the settings block, each with a flag made from its own line of source, and the flags over them."""
    block = read_block(Path(__file__).read_text(encoding='utf-8'))
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    groups = {setting.group: parser.add_argument_group(setting.group) for setting in block}
    for setting in block:
        flag, default = f'--{setting.name.replace("_", "-")}', globals()[setting.name]
        shown = '…' if setting.name == 'proxies' and default else repr(default)  # it may hold passwords
        told = f'{setting.about} ({shown})'.replace('%', '%%')
        groups[setting.group].add_argument(flag, default=default, help=told, **read_flag(setting))
    preset = parser.parse_args(argv).preset
    require(preset in ('', *PRESETS), f'preset = {preset!r}: use one of {", ".join(PRESETS)}')
    parser.set_defaults(**PRESETS.get(preset, {}))
    settings = parser.parse_args(argv)
    for setting in block:
        value = getattr(settings, setting.name)
        shown = '…' if setting.name == 'proxies' else repr(value)
        require(type(value) in KINDS[setting.kind], f'{setting.name} = {shown}: use {setting.kind}')
    check_settings(settings)
    return settings


def check_name(name: str, splits: list[str]) -> None:
    """Refuse a template whose clips could overwrite each other or leave wavs/."""
    wrong = f'name = {name!r}'
    sample = {'ytid': 'Y' * 11, 'split': '', 'start': 0.0, 'end': 10.0, 'index': 0, 'part': 0}
    try:
        levels = [level for split in splits for level in name.format(**{**sample, 'split': split}).split('/')]
        fields = [field[1:] for field in string.Formatter().parse(name.rpartition('/')[2]) if field[1] is not None]
    except KeyError as error:
        raise UsageError(f'{wrong}: {error} is none of {", ".join(sample)}') from None
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        raise UsageError(f'{wrong}: {error}; write fields like {{ytid}}, of {", ".join(sample)}') from None
    require(levels[0] != 'ledgers', f'{wrong}: wavs/ledgers is taken')
    require(
        not name.endswith(tuple(f'.{ext}' for ext in ENCODE)), f'{wrong}: leave the extension away, it comes by itself'
    )
    for level in levels:
        require(level, f'{wrong}: is empty between, before or after its /')
        fits = re.fullmatch(r'[^<>:"\\|?*\x00-\x1f]+', level) and not re.search(r'^[\s.]|[\s.]$', level)
        require(fits and len(os.fsencode(level)) <= 240, f'{wrong}: {level!r} cannot be a name in wavs/')  # bytes
    unique = ('ytid', '', None) in fields[:1] + fields[-1:]  # with its 11 characters at a fixed place
    require(
        unique,
        f'{wrong}: clips could overwrite each other; after the last /, the first or the last field must be {{ytid}}',
    )


def check_numbers(s: Settings) -> None:
    """Refuse values that cannot work."""
    rates = RATES.get(s.ext, range(1, 384_001))
    require(s.sample_rate is None or s.sample_rate in rates, f'sample_rate = {s.sample_rate}: {s.ext} takes {rates} Hz')
    require(s.channels in (None, 1, 2), f'channels = {s.channels}: use 1 or 2')
    require(s.limit is None or s.limit > 0, f'limit = {s.limit}: use a number above 0, or None')
    above = 'num_processes per_label max_height timeout clip_timeout pause longest_pause per_hour'
    for name in above.split():
        value = getattr(s, name)
        require(value is None or 0 < value < math.inf, f'{name} = {value}: use a number above 0')
    for name in ('retries', 'retry_pause', 'give_up_after'):
        require(0 <= getattr(s, name) < math.inf, f'{name} = {getattr(s, name)}: use a number from 0')
    share = re.fullmatch(r'0*([0-9]+)/0*([1-9][0-9]*)', s.shard)
    count = int(share[2]) if share else 8
    require(share and int(share[1]) < count, f'shard = {s.shard!r}: use 0/{count} to {count - 1}/{count}')
    s.shard = f'{int(share[1])}/{count}'  # so that 03/8 is 3/8


def check_settings(s: Settings) -> None:
    """Refuse values and combinations that cannot work."""
    reasons = {reason for reason, verdict, *_ in VERDICTS if verdict == GONE}
    for name, choices in CHOICES.items():
        shown = ', '.join(filter(None, choices))
        require(getattr(s, name) in choices, f'{name} = {getattr(s, name)!r}: use one of {shown}')
    require(s.splits, 'splits is empty: name at least one list')
    for split in s.splits:
        require(re.fullmatch(r'\w[\w.-]*', str(split)), f'splits: {split!r} is no name (put spaces between names)')
        require(Path(split).suffix not in ('.csv', '.tsv'), f'splits: name {split!r} without its extension')
    require(len(s.splits) == len(set(s.splits)), f'splits = {s.splits}: one is named twice')
    check_numbers(s)
    require(s.ext != 'mp4' or not s.pad, 'pad is for audio, not for mp4')
    require(s.ext == 'mp4' or not s.exact_frames, f'exact_frames is for mp4, not for {s.ext}')
    require(set(s.again) <= reasons, f'again = {s.again}: use reasons of gone rows: {", ".join(sorted(reasons))}')
    require(not s.ffmpeg or shutil.which(s.ffmpeg), f'ffmpeg = {s.ffmpeg!r}: no such program')
    modes = {'verify': s.verify, 'merge': s.merge, 'dry_run': s.dry_run, 'report': s.report is not None}
    require(sum(modes.values()) < 2, f'{" and ".join(mode for mode, on in modes.items() if on)}: one at a time')
    folder = Path(s.report or '.').absolute().parent
    require(not s.report or folder.is_dir(), f'report = {s.report!r}: there is no such folder')
    installed = s.engine != 'ray' or importlib.util.find_spec('ray')
    require(installed, "engine = 'ray': Ray is not installed; pip install ray")
    check_name(s.name, s.splits)


def read_proxy(proxy: str) -> tuple[str, str]:
    """What to call a proxy, and its address as yt-dlp and ffmpeg both can use it; UsageError for one that they
    cannot use."""
    at = urllib.parse.urlsplit(proxy if '://' in proxy else f'http://{proxy}')
    host = proxy.rpartition('@')[2]
    wrong = f'proxy {host}: use http://host:port or http://user:password@host:port, special characters as %40'
    require(
        not at.scheme.startswith('socks') and at.scheme != 'https',
        f'{wrong}; ffmpeg knows neither SOCKS nor https proxies',
    )
    with contextlib.suppress(ValueError):  # of a port that is none
        require(at.scheme == 'http' and at.hostname and not re.search(r'\s', proxy), wrong)
        return f'{at.hostname}:{at.port or 80}', at.geturl()
    raise UsageError(wrong)


def open_routes(settings: Settings) -> None:
    """Add to the settings how YouTube may be reached, name -> proxy; media must come by the same address that asked
    for them."""
    if (bundle := os.environ.get('SSL_CERT_FILE')) and not os.path.isfile(bundle):
        raise UsageError(f'SSL_CERT_FILE = {bundle}: no such file')
    around = urllib.request.getproxies() if 'direct' in (settings.proxies or ['direct']) else {}
    if proxy := around.get('https') or around.get('all') or around.get('http'):
        os.environ['https_proxy'] = os.environ['http_proxy'] = read_proxy(proxy)[1]  # ffmpeg reads http_proxy only
    for proxy in settings.proxies:
        host = proxy.rpartition('@')[2]
        require(host == 'direct' or re.search(r':\d+/?$', host), f'proxy {host}: use http://host:port or direct')
    named = [('direct', '') if proxy == 'direct' else read_proxy(proxy) for proxy in settings.proxies or ['direct']]
    settings.routes = dict(named)
    require(len(settings.routes) == len(named), 'proxies: one is named twice')


def open_root(settings: Settings) -> None:
    """Add the paths to the settings; make the folders where they are missing; UsageError if they cannot be written."""
    root = settings.root = Path(settings.root or Path(__file__).parent).expanduser().resolve()
    settings.csvs, settings.wavs, settings.temps = root / 'csvs', root / 'wavs', root / 'temps'
    settings.ledger, tag = ledger_path(settings), f'{settings.ext}-{settings.shard.replace("/", "-of-")}'
    settings.metadata, settings.run_prefix = root / 'audioset_metadata.json', f'run-{zlib.crc32(bytes(root)):x}-{tag}-'
    settings.parts = settings.wavs / '.parts' / tag  # finished clips on their way to wavs/
    settings.cookie_path = root / Path(settings.cookie_path).expanduser()
    try:
        for folder in (settings.wavs, settings.temps, settings.ledger.parent):
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        settings.csvs.mkdir(exist_ok=True)  # it may be read-only, as long as all lists are there
    except OSError as error:
        if judge(str(error))[0] == 'system' and not isinstance(error, PermissionError):  # full: that may pass
            raise
        raise UsageError(f'root = {root}: cannot be written ({error.strerror})') from None


def read_cookies(path: Path, wanted: bool) -> str:
    """The cookies of a Netscape file as yt-dlp takes them, '' if there are none; UsageError for a file of another
    kind."""
    require(not path.exists() or path.is_file(), f'{path}: not a file')
    require(path.exists() or not wanted, f'{path}: no such file')
    text = path.read_text(encoding='utf-8-sig', errors='replace') if path.exists() else ''
    rows = [
        line.split('\t') for line in text.splitlines() if line.startswith('#HttpOnly_') or line[:1] not in ('', '#')
    ]
    hint = 'not a Netscape cookie file (7 fields with tabs between); export it as README says, or delete it'
    require(all(len(row) == 7 for row in rows), f'{path}: {hint}')
    for row in rows:
        row[4] = row[4] if row[4].isdecimal() else '0'  # the date; yt-dlp prints cookies whose date it cannot read
    return '\n'.join(['# Netscape HTTP Cookie File', *map('\t'.join, rows), '']) if rows else ''


def modified(path: Path) -> int:
    """When a file was written last, in ns; 0 for none."""
    with contextlib.suppress(OSError):
        return path.stat().st_mtime_ns
    return 0


def renew_cookies(settings: Settings) -> bool:
    """Whether there are new cookies: the file was put there, replaced or taken away."""
    path, former = settings.cookie_path, settings.cookies
    if (stamp := modified(path)) == settings.cookie_stamp:
        return False
    settings.cookie_stamp = stamp
    try:
        settings.cookies = read_cookies(path, wanted=False)
    except (UsageError, OSError) as error:
        say(f'{error}; going on with the former cookies')
    else:
        say(f'{path.name} has changed: from now on its {"cookies are used" if settings.cookies else "absence counts"}')
    return settings.cookies != former


def clip_size(settings: Settings) -> float:
    """Bytes of a clip of 10 s, about: enough to tell whether they will fit the disk."""
    pcm = (settings.sample_rate or 44_100) * (settings.channels or 2) * 2
    return (
        10 * {'wav': pcm, 'flac': 0.6 * pcm, 'opus': 12_000, 'mp3': 25_000, 'm4a': 16_500, 'mp4': 70_000}[settings.ext]
    )


def find_ffmpeg(settings: Settings) -> set[str]:
    """Settle which ffmpeg it is; returns which of the wanted http flags it has."""
    import imageio_ffmpeg

    try:
        found = settings.ffmpeg = shutil.which(settings.ffmpeg) if settings.ffmpeg else imageio_ffmpeg.get_ffmpeg_exe()
        asked = [found, '-hide_banner', '-h', 'protocol=http']
        told = subprocess.run(asked, capture_output=True, text=True, errors='replace').stdout
    except (OSError, RuntimeError) as error:
        raise UsageError(f'ffmpeg: {error}; name one with the ffmpeg setting') from None
    require('-user_agent' in told, f'ffmpeg = {found!r}: is no ffmpeg that can fetch')
    wanted = HTTP_FLAGS.keys()
    has = {flag for flag in wanted if f'-{flag} ' in told}
    if has != wanted:
        say(
            f'{found} is too old for -{" and -".join(sorted(wanted - has))}: going on without, with more bytes per clip'
        )
    return has


def announce(settings: Settings, bar: Progress) -> None:
    """What there is to do, and whether the disk has room for it."""
    settled, done = bar.before.total(), sum(n for (status, _), n in bar.before.items() if status == DONE)
    left = bar.total - settled
    counts = f'{bar.total} rows, {settled} settled ({done} done), {left} to do'
    share = f' (shard {settings.shard})' if settings.shard != '0/1' else ''
    say(f'{", ".join(settings.splits)}{share}: {counts}, {settings.ext} in {settings.wavs}')
    need, free = left * clip_size(settings), shutil.disk_usage(settings.wavs).free
    if free < need:
        say(
            f'about {need / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free: '
            'the run stops before the disk is full'
        )


def fetch_rows(settings: Settings, job: Job, rows: Iterator[Segment], bar: Progress) -> str:
    """Download the rows that are not settled; returns why it stopped early, or ''."""
    ledger = job.reader.ledger

    def settle(result: Result) -> None:
        if result.reason == 'unexpected' and not bar.results[FAILED, 'unexpected']:
            say(f'unexpected, please report it:\n{result.message}')
        if result.made:
            path = settings.root / result.record['path']
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(result.made, path)
        ledger.settle(result)
        job.given.discard(result.segment.clip)
        bar.update(result)

    def tick(weather: str) -> None:
        if not job.reader.whole and not settings.limit:
            job.reader.step()
        elif not bar.counted:
            bar.look()
            announce(settings, bar)
        bar.tell(weather)
        ledger.commit()
        ledger.remember(pace.learned)

    with contextlib.closing(Cluster(settings) if settings.engine == 'ray' else Pool(settings)) as pool:
        routes = () if settings.engine == 'ray' else settings.routes  # of a cluster, nodes bring theirs
        pace = Pace(settings, routes, rows, settle, job.known_good(), ledger.learned())
        try:
            return fetch_all(settings, pace, pool, tick)
        except (OSError, sqlite3.Error) as error:  # the ledger or a clip's place cannot be written
            return f'{error}; mend that'


def open_lists(settings: Settings, ledger: Ledger) -> tuple[Reader, dict[str, str]]:
    """The lists and what belongs to them, fetched where they are missing; AudioSet's come first. And tag -> label."""
    order = sorted(settings.splits, key=rank_of)
    for split in order:
        provide(list_path(settings, split), settings.routes.values())
    lists = {split: (path := list_path(settings, split), recognise(path)) for split in order}
    strong = any('clip' in form.columns for _, form in lists.values())
    for name in ['class_labels_indices.csv', *['mid_to_display_name.tsv'] * strong]:
        provide(settings.csvs / name, settings.routes.values())
    names = read_names(settings.csvs / 'mid_to_display_name.tsv') if strong else {}
    labels = {**names, **read_labels(settings.csvs / 'class_labels_indices.csv')}
    reader = Reader(ledger, lists, labels, names)
    if settings.labels or settings.exclude or not set(reader.lines) & set(WEAK):
        for split in order:  # else in passing, behind AudioSet's long ones, which give shared clips their names
            if split not in WEAK:
                reader.finish(split)
    return reader, labels


def make_choice(settings: Settings, reader: Reader, labels: dict[str, str]) -> Choice | None:
    """What the settings choose; None: everything."""
    if not (settings.labels or settings.exclude or settings.per_label):
        return None
    names, below = labels, {}
    if (settings.labels or settings.exclude) and settings.descendants:
        provide(settings.csvs / 'ontology.json', settings.routes.values())
        theirs, below = read_ontology(settings.csvs / 'ontology.json')
        names = {**theirs, **labels}
    own = reader.ledger.db.execute("SELECT DISTINCT labels FROM tagset WHERE tags = '[]'")
    known = {name.casefold() for (texts,) in own for name in json.loads(texts)}
    wanted, unwanted = (find_classes(of, names, below, known) for of in (settings.labels, settings.exclude))
    return Choice(wanted, unwanted, settings.per_label, settings.seed)


def open_job(settings: Settings, ledger: Ledger) -> tuple[Job, dict[str, str]]:
    """What the user asks for, and tag -> label."""
    reader, labels = open_lists(settings, ledger)
    job = Job(reader, settings, make_choice(settings, reader, labels))
    while not job.find('true', most=1) and not reader.whole:
        reader.step()
    left = ' that labels, exclude and per_label leave'
    why = left if job.choice else '; a list of AudioSet that is deleted is fetched anew'
    usable = job.find('true', most=1) or settings.shard != '0/1'
    require(usable, f'{", ".join(settings.splits)}: not one usable row{why}')
    return job, labels


def plan(settings: Settings, job: Job) -> str:
    """What a run would do, by list."""
    lines = [f'{"":<20}{"rows":>10}{"settled":>10}{"done":>10}{"to do":>10}{"shared":>10}  with the lists above']
    to_do, own, shared = 0, job.counts('l.id'), job.counts('l.id', of=f' AND {job.shared}')
    for split, id in job.reader.ids.items():
        found = Counter({(status, reason): n for (of, status, reason), n in own.items() if of == id})
        again = sum(n for (of, *_), n in shared.items() if of == id)
        left, done, total = rows_left(found), found[DONE, ''], found.total()
        to_do += left
        lines.append(f'{split:<20}{total + again:>10}{total - left:>10}{done:>10}{left:>10}{again:>10}')
    size = to_do * clip_size(settings) / 1e6
    return '\n'.join([*lines, f'to do: about {size:,.0f} MB of {settings.ext}; {job.skipped} lines are no rows'])


class Coverage(NamedTuple):
    """How many rows of a class there are, and what became of them."""

    tag: str
    label: str
    rows: int
    there: int
    left: int
    gone: dict[str, int]  # by reason

    @property
    def lost(self) -> float:
        return sum(self.gone.values()) / self.rows


def cover(job: Job, labels: dict[str, str]) -> list[Coverage]:
    """What the clips cover of each class, by the share that is lost for good."""
    classes = defaultdict[str, Counter[str]](Counter)
    for (tagset, status, reason), count in job.counts('a.tagset', of='').items():
        for name in job.classes[tagset]:
            classes[name][DONE if status == DONE else reason if status == GONE else ''] += count
    made = []
    for name, found in classes.items():
        gone = {reason: n for reason, n in found.most_common() if reason not in ('', DONE)}
        label = labels.get(name, name)
        made.append(Coverage(name if name in labels else '', label, found.total(), found[DONE], found[''], gone))
    return sorted(made, key=lambda one: (-one.lost, -one.rows, one.label))


def show_coverage(table: list[Coverage], most: int | None = None) -> str:
    """The table as text, of so many classes."""
    lines = [f'{"class":<36}{"rows":>9}{"there":>9}{"left":>9}{"lost":>8}  gone']
    for one in table[:most]:
        gone = ', '.join(f'{reason} {n}' for reason, n in one.gone.items())
        label = textwrap.shorten(one.label, 35, placeholder='…')
        lines.append(f'{label:<36}{one.rows:>9}{one.there:>9}{one.left:>9}{one.lost:>8.1%}  {gone}'.rstrip())
    more = len(table) - len(table[:most])
    return '\n'.join([*lines, *([f'... and {more} more classes: python download.py --report'] if more else [])])


def save_coverage(path: Path, table: list[Coverage]) -> None:
    """The table as CSV, with a column for each reason."""
    reasons = sorted({reason for one in table for reason in one.gone})
    out = io.StringIO(newline='')
    rows = csv.writer(out, lineterminator='\n')
    rows.writerow(['mid', 'label', 'rows', 'there', 'left', 'lost', *(f'gone: {reason}' for reason in reasons)])
    for one in table:
        rows.writerow([*one[:5], round(one.lost, 4), *(one.gone.get(reason, 0) for reason in reasons)])
    replace_file(path, out.getvalue().encode())


def look(settings: Settings) -> int:
    """--dry-run and --report: say how things stand, and do nothing. Beside a run, of what that has read so far."""
    try:
        lock, free = claim(settings.ledger), True
    except UsageError as busy:
        say(f'{busy}'.partition(';')[0] + ': as far as that is')
        lock, free = None, False
    with lock or contextlib.nullcontext(), Ledger(settings, write=free) as ledger:
        job, labels = open_job(settings, ledger)
        if not settings.limit:
            job.reader.finish()
        if settings.dry_run:
            print(plan(settings, job))
            return 0
        table = cover(job, labels)
    if settings.report:
        save_coverage(Path(settings.report), table)
    print(f'{len(table)} classes in {settings.report}' if settings.report else show_coverage(table))
    if not table:
        print('these lists name no classes')
    return 0


def settle_rows(settings: Settings, ledger: Ledger) -> int:
    """Find out what is to be done, and do it; returns how many rows are left."""
    job, labels = open_job(settings, ledger)
    job.reopen(settings.again)
    bar, stop = Progress(job), ''
    with bar.bar:
        rows = job.rows()
        if first := next(rows, None):
            stop = fetch_rows(settings, job, itertools.chain([first], rows), bar)
        if not settings.limit and not stop:
            job.reader.finish()
        if not bar.counted:
            bar.look()
            announce(settings, bar)
        bar.follow()
    counts = job.counts() if bar.results else bar.counts
    say(bar.table(counts))
    table = cover(job, labels) if bar.results else []
    if table and table[0].gone:
        say(f'\n{show_coverage(table, 10)}\n')
    if stop:
        size = rows_left(counts) * clip_size(settings) / 1e9
        left = f'{rows_left(counts)} rows are left, which need about {size:.2f} GB'
        print(f'stopped: {stop}; {left}; run the same command again', file=sys.stderr)
    return rows_left(counts)


def claim_ledgers(settings: Settings, held: contextlib.ExitStack) -> Ledger:
    """Our ledger is ours for the run; without shards, and for verifying, so are all others of this ext."""
    sharded, unsharded = settings.shard != '0/1', ledger_path(settings, '0/1')
    if lock := claim(settings.ledger):
        held.enter_context(lock)
    others = [path for path in find_ledgers(settings) if of_ext(path, settings.ext) and path != settings.ledger]
    with contextlib.ExitStack() as lent:
        for path in others if settings.verify or not sharded else [unsharded]:
            if lock := claim(path, patience=2):  # another shard may look at the same moment
                (lent if sharded else held).enter_context(lock)
        ledger = held.enter_context(Ledger(settings))
        for path in find_ledgers(settings):
            if path != settings.ledger:
                learn(ledger, path)
        if settings.verify:
            with contextlib.ExitStack() as opened:
                verify_clips([ledger, *(opened.enter_context(Ledger(settings, path=path)) for path in others)])
    return ledger


def run(settings: Settings) -> int:
    """The job: lists, cookies and locks, then all rows, then the metadata. Returns the exit status."""
    check_ydl_opts(settings)
    settings.cookie_stamp = modified(settings.cookie_path)
    settings.cookies = read_cookies(settings.cookie_path, wanted=settings.cookie_path != settings.root / 'cookies.txt')
    sharded = settings.shard != '0/1'
    with contextlib.ExitStack() as held:
        ledger = claim_ledgers(settings, held)
        for left in [*settings.temps.glob(f'{settings.run_prefix}*'), settings.parts]:
            shutil.rmtree(left, ignore_errors=True)  # of a run that was killed
        try:
            left = settle_rows(settings, ledger)
        except KeyboardInterrupt:
            print(f'\ninterrupted; {interrupted(ledger)}; the same command goes on', file=sys.stderr)
            return 130
        say('python download.py --merge makes the metadata of all shards' if sharded else merge_metadata(ledger))
    return 1 if left else 0


def interrupted(ledger: Ledger) -> str:
    """The metadata of what is there, unless there is so much of it that Ctrl-C would seem to hang."""
    if not ledger.sharded and ledger.path.stat().st_size < 150e6:  # bytes; two seconds
        return merge_metadata(ledger)
    return 'python download.py --merge makes the metadata of what is there'


def open_streams() -> None:
    """Have somewhere to speak to, even where the shell has closed it; no title ends the run where it cannot be
    shown."""
    for name in ('stdout', 'stderr'):
        stream = getattr(sys, name) or open(os.devnull, 'w')  # noqa: SIM115  # for the whole run
        stream.reconfigure(errors='replace')
        setattr(sys, name, stream)


def main(argv: list[str] | None = None) -> int:
    """0: every row is settled; 1: run it again; 2: settings or input are wrong; 130: interrupted."""
    for name in {'SIGTERM', 'SIGHUP'} & set(dir(signal)):  # a scheduler's or a closing terminal's request is a Ctrl-C
        if signal.getsignal(getattr(signal, name)) == signal.SIG_DFL:
            signal.signal(getattr(signal, name), signal.default_int_handler)
    open_streams()
    try:
        settings = read_settings(argv)
        open_root(settings)
        open_routes(settings)
        if settings.dry_run or settings.report is not None:
            return look(settings)
        if settings.merge:
            print(merge_ledgers(settings))
            return 0
        return run(settings)
    except UsageError as error:
        print(f'download.py: {hide(str(error))}', file=sys.stderr)
        return 2
    except sqlite3.DatabaseError as error:
        broken = 'malformed' in str(error) or 'readonly' in str(error)
        remedy = remedy_for(error) if broken else 'run the same command again'
        print(f'download.py: {settings.ledger}: {error}; {remedy}', file=sys.stderr)
        return 2 if broken else 1
    except OSError as error:  # the ledger or the metadata cannot be written
        print(f'download.py: {error}; mend that, then run the same command again', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 130


if __name__ == '__main__':
    try:
        status = main()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done
    except KeyboardInterrupt:
        status = 130
    raise SystemExit(status)
