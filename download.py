"""Download AudioSet: fetch only the wanted seconds of each YouTube video, many at a time, and remember what came of it.

    python download.py                          # every row that is not settled yet; run it again to resume
    python download.py --limit 20               # try it out
    python download.py --splits eval --ext wav --sample-rate 16000 --channels 1
    python download.py --labels Dog --dry-run   # how many rows that leaves; --report: what became of them, by class
    python download.py --help                   # every setting below is also a flag

It leaves the clips in `wavs/` and their url, path, title, tags and labels in `audioset_metadata.json`:

    csvs/     lists of segments and labels, AudioSet's fetched when they are not there
    wavs/     id_<YTID>.<ext>, always whole, and the ledger, <ext>.sqlite3, which remembers everything (of other makes
              and of shards in ledgers/); <split>.csv and <split>_missing.csv: what is there, and what is not
    packs/    what --pack makes
    temps/    scratch; safe to delete when nothing runs
"""
# /// script
# requires-python = ">=3.10"
# dependencies = ["yt-dlp[default,deno]", "tqdm", "imageio-ffmpeg", "pebble", "filelock"]
# ///

from __future__ import annotations

import argparse
import ast
import asyncio
import base64
import bisect
import concurrent.futures
import contextlib
import csv
import difflib
import errno
import functools
import gzip
import hashlib
import http.client
import importlib.util
import io
import itertools
import json
import math
import multiprocessing
import multiprocessing.connection
import operator
import os
import platform
import queue
import random
import re
import secrets
import shlex
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import tarfile
import tempfile
import textwrap
import threading
import time
import tokenize
import traceback
import urllib.parse
import urllib.request
import zlib
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path, PurePath
from typing import Any, NamedTuple, NoReturn, TextIO

import filelock
import pebble
from tqdm import tqdm

# ---------------------------------------------------------------------------------------------------------- settings
# what to fetch
splits: list[str] = ['unbalanced_train']  # or another list: see README, csvs/<name>, or an address to fetch it from
columns: dict = {}  # names of columns that README's table lacks, e.g. {'ytid': 'vid', 'start': 'from'}
length: float | None = None  # s to take of videos whose list names no times and that AudioSet lacks; None: none
labels: list[str] = []  # only rows with one of these classes, by name or MID, e.g. Dog /m/01yrx; none: all rows
exclude: list[str] = []  # no rows with one of these classes
descendants: bool = True  # a class brings those below it in AudioSet's ontology, Animal also Dog
per_label: int | None = None  # so many rows of a class in each list, rare classes first; None: all
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
remake: bool = False  # replace clips of another rate, padding, ... under the same names, one by one
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
proxies: list[str] = []  # routes to use side by side: direct (this machine), ssh://host, socks5h://host:port
# with what
cookie_path: str = 'cookies.txt'  # your cookies in Netscape format, used if the file exists, and again when it changes
client: str = ''  # YouTube client for the single cheap request; empty: what yt-dlp uses without JavaScript
ffmpeg: str = ''  # another ffmpeg to use; empty: the one that comes with imageio-ffmpeg
ydl_opts: dict = {}  # more options for yt-dlp, on the command line as JSON
root: str = ''  # folder with csvs, wavs, temps, cookies.txt and the metadata; empty: where this script is
# instead of a plain run
dry_run: bool = False  # only say how many rows there are, how many are settled and how many to do
report: str | None = None  # only say which classes the clips cover; FILE.csv: as CSV; FILE.html: as a page, with sound
verify: bool = False  # check every clip that the ledger names and fetch again what is missing or damaged
merge: bool = False  # only make audioset_metadata.json, from the ledgers of all shards
pack: int | None = None  # only write what is there and not packed yet as WebDataset shards of so many clips, in packs/

# ------------------------------------------------------------------------------------------------------------- types
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
    # flac's frames are else as large as the first one, which may be of 8 samples
    'flac': ['-c:a', 'flac', '-sample_fmt', 's16', '-frame_size', '4096', '-f', 'flac'],
    'opus': ['-c:a', 'libopus', '-b:a', '96k', '-f', 'opus'],
    'mp3': ['-c:a', 'libmp3lame', '-q:a', '2', '-f', 'mp3'],
}
ENCODE['mp4'] = ENCODE['m4a']
AAC_RATES = [7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000]  # Hz
RATES = {'m4a': AAC_RATES, 'mp4': AAC_RATES, 'opus': [8000, 12000, 16000, 24000, 48000], 'mp3': AAC_RATES[1:10]}

DONE, GONE, LATER, FAILED, DOUBT, THROTTLED, STOP = 'done', 'gone', 'later', 'failed', 'doubt', 'throttled', 'stop'
ANSWERS = (DONE, GONE, LATER)  # of YouTube on a video
# reason, verdict, whether the cheap request is believed, words of YouTube, yt-dlp or us; the first that fits counts
WORDS = r"""
route         doubt      sure   no way by
cookies       throttled  sure   cookies are no longer valid|failed to load cookies
system        stop       sure   no space left|quota exceeded|read-only file system|file too large|permission denied
system        stop       sure   ffmpeg exited with code (228|226|134)
captcha       throttled  maybe  captcha
bot check     throttled  maybe  not a bot
rate limit    throttled  maybe  rate-limited|content isn't available, try again later|http error 429|429 too many
media 403     doubt      sure   ^(ffmpeg|download).*(403 forbidden|http error 403)
wrong length  doubt      sure   ^ffmpeg made [\d.]+ s instead
too large     later      sure   ^download: more than
media         doubt      sure   ^download: |^ffmpeg.*(timed out|reset|refused|unreachable|resolve|end of file)
media         doubt      sure   ^ffmpeg.*(5xx|\b50\d\b|i/o error|input/output)
media         failed     sure   ^ffmpeg
too short     gone       sure   ^the video ends
damaged       later      maybe  ^every format with sound ends
dubbed        later      maybe  ^the original sound has no address
no address    later      maybe  ^the video plays
no sound      gone       maybe  ^the video has no sound
no format     failed     maybe  ^no format
blocked       throttled  maybe  likely being blocked|(?<!may yield )http error 403
age           gone       maybe  confirm your age|age-restricted
members       gone       sure   members-only|join this channel|premium|requires payment
private       gone       sure   private video|video is private
terminated    gone       sure   account .*terminated|account has been (closed|suspended)|has closed their
removed       gone       sure   has been removed for violating|due to a (trademark|privacy) claim
country       gone       sure   in your country
copyright     gone       sure   copyright
removed       gone       sure   has been removed
restricted    doubt      sure   administrator|restricted mode|workspace account
blocked       throttled  maybe  your (account|network) (is|has been) (restrict|block)
drm           gone       maybe  drm protected
live          later      sure   live event|premieres in|not currently live
no format     failed     maybe  requested format|no video formats
network       doubt      sure   timed out|connection|reset|resol|unreachable|refused|ssl|proxy
network       doubt      sure   failed to parse json|http error 5
other         doubt      maybe  try again later
unavailable   gone       maybe  video (is )?(un|not |no longer )available|isn't available
unavailable   gone       maybe  recording is not|does not exist
other         failed     maybe  ^
"""  # ffmpeg's 228, 226 and 134 are -ENOSPC, -EROFS and -EDQUOT: no room even to say so
VERDICTS = [re.split(' {2,}', row, maxsplit=3) for row in WORDS.strip().splitlines()]
VAGUE = ('other', 'no format', 'unexpected')  # reasons that say nothing
TOO_SHORT = 0.1  # s of a clip that is none
# settings that choose rows, and that decide on their clips
CHOOSING = 'splits', 'columns', 'length', 'labels', 'exclude', 'descendants', 'per_label', 'seed', 'limit', 'preset'
MAKING = 'ext', 'sample_rate', 'channels', 'pad', 'max_height', 'exact_frames', 'name', 'remake'
LARGEST = 1 << 29  # bytes of a video that has to be downloaded whole
DIED = 'worker died'  # the reason of a row whose process ended
REMEDY = 'it goes on by itself; cookies.txt, proxies or a PO-token provider may help (see README)'

Address = urllib.parse.SplitResult
Settings = argparse.Namespace  # the globals, the flags over them, and the paths; it travels to the workers


class UsageError(ValueError):
    """What the user can mend; its text is the one line that says what, where and how."""


def require(holds: Any, message: str) -> None:
    if not holds:
        raise UsageError(message)


class Segment(NamedTuple):
    """A row to fetch, and how."""

    ytid: str
    start: float  # s
    end: float  # s
    split: str
    index: int = 0  # of the row in its list
    tries: int = 0  # that failed
    deaths: int = 0  # of workers that had it
    refusals: int = 0  # that it was the first to meet on a route
    cheap: bool = True  # ask with the single cheap request first
    nowhere: frozenset[str] = frozenset()  # routes in whose country it is not shown
    unproven: bool = False  # it was said to be gone, without proof
    id: str = ''  # in the ledger: id_<ytid>[_<start in ms>[_<end in ms>]]; of AudioSet's own clips only the video's
    clip: int = 0  # its number there


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

    @property
    def mark(self) -> str:
        """How the name of its scratch folder begins."""
        return f'{self.segment.id}-{self.at}-'


class Result(NamedTuple):
    """What became of a segment. `record` holds the fields that only the fetching could tell."""

    segment: Segment
    verdict: str
    reason: str
    message: str = ''
    record: dict[str, Any] = {}
    made: str = ''  # where the clip waits for its place
    cheap_failed: bool = False  # the full extraction brought what the cheap request did not
    adopted: bool = False  # it lay in its place: nobody has asked YouTube

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
        if way := re.search('no way by .*', words):  # the door's own, without what others put around it
            words = way[0].rstrip('\'")')
        plain = ' '.join(re.split(r' Use --cookies| It is recommended', words)[0].split())  # the rest advises others
        self.words = hide(re.sub(r'\?\S{40,}', '?…', plain))[:300]  # a medium's address is long and holds the user's
        self.reason, self.verdict, self.sure = judge(words)


def hide(text: str) -> str:
    """Text without the logins of the addresses in it."""
    return re.sub(r'://\S*@', '://…@', text)


def judge(words: str) -> tuple[str, str, bool]:
    """Reason, verdict and whether the cheap request may be believed: the one place that interprets refusals."""
    plain = ' '.join(words.lower().replace('’', "'").split())
    reason, verdict, believed, _ = next(row for row in VERDICTS if re.search(row[3], plain))
    return reason, verdict, believed == 'sure'


def say(message: str) -> None:
    """A line for the user, above the bar if there is one; to nobody once nobody listens."""
    try:
        with tqdm.external_write_mode():
            print(message, flush=True)
    except BrokenPipeError:  # `| head` has seen enough, but the run goes on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# -------------------------------------------------------------------------------------------------------------- rows
COLUMNS = {  # what a column tells -> the names that it goes by, small and with _ between words, the best first
    'ytid': 'ytid youtube_id video_id videoid yt_id vid youtube_url video_url url link filename file_name file fname '
    'audio_path path wav audio segment_id clip_id id',
    'start': 'start start_s start_time starttime start_seconds start_time_seconds time_start',
    'end': 'end end_s end_time endtime end_seconds end_time_seconds time_end',
    'duration': 'duration duration_s duration_seconds',
    'onset': 'onset',  # of an event, s within the clip
    'offset': 'offset',
    'tags': 'tags tag mids mid positive_labels audioset_positive_labels',
    'label': 'label labels class classes display_name category event_label event_labels',
    'caption': 'caption captions',
    'subset': 'split subset',
}
EVENTS = [{'segment_id', 'start_time_seconds'}, {'videoid', 'quality', 'starttime'}]  # whose times are events': AVE's
CLIP = re.compile(r'(?:.*[/\\])?[Y_]?([\w-]{11})(?:_(\d+(?:\.\d+)?))?(?:_(\d+(?:\.\d+)?))?(?:\.[A-Za-z]\w{1,4})?', re.A)
LINK = re.compile(r'\S*youtu\S*(?:[?&]v=|\.be/|/embed/|/shorts/|/live/|/v/)([\w-]{11})(?:[?&#/]\S*)?', re.A)
CLOCK = r'(?:(?:(\d+)[:h])?(\d+)[:m])?(\d+(?:\.\d*)?)s?'
TIMES = 'start', 'end', 'duration', 'onset', 'offset'
SHAPES = {  # what a cell without a head tells by how it looks, each but once
    'ytid': f'{CLIP.pattern}|{LINK.pattern}',
    'start': CLOCK,
    'end': CLOCK,
    'tags': '/[mtg]/.*',
    'subset': 'train|val|valid|validation|dev|test|eval',
    'label': r'(?![-+.\d]+(e[-+]?\d+)?$).*[^\W\d_].*',
}
PLAIN_ROW = re.compile(  # as AudioSet publishes it: two million of these are read without csv
    r'([\w-]{11}), (\d{1,9}\.\d{1,9}), (\d{1,9}\.\d{1,9}), "([\w/,-]{0,9999})"\s*', re.A
)
read_json = functools.partial(json.loads, parse_constant=lambda _: None)  # NaN is no JSON, and tells nothing
SEVERAL = re.compile(r'\s*[;|]\s*|,(?=\S)|,\s+(?=/)')  # between classes: a name may hold a comma with a space behind
Line = tuple[int, str]  # its number, its text
Cells = list[str] | str | dict[str, Any] | Exception
Read = tuple[int, 'Row | Exception']  # its number
Lists = dict[str, tuple[Path, 'Form']]  # by name


class Row(NamedTuple):
    """What a row of a list asks for."""

    ytid: str
    start: int | None  # ms; None: what AudioSet's own row has
    end: int | None  # ms; None: its list names none, and it is as long as AudioSet's clip
    tags: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()  # classes without a MID
    more: dict[str, Any] = {}  # captions, events, subset, row: the cells that tell nothing of all this


class Form(NamedTuple):
    """How a list is written."""

    columns: dict[str, str]  # what they tell -> their heads, or their numbers from 1
    heads: list[str]
    between: str = ','  # the cells; json: it is a document, jsonl: an object a line
    line: int = 0  # of the heads; 0: there are none, or in a comment

    def __str__(self) -> str:
        told = ', '.join(f'{tells} = {head}' for tells, head in self.columns.items())
        rest = ', '.join(head for head in self.heads if head not in ('', *self.columns.values()))
        between = {'\t': 'tab'}.get(self.between, self.between)
        return f'{between} | {told}' + (f' | kept in row: {rest}' if rest else '')


@functools.lru_cache(1 << 16)
def milliseconds(text: str, head: str) -> int:
    clock = re.fullmatch(CLOCK, text, re.A)
    hours, minutes, seconds = clock.groups('0') if clock else (0, 0, text)
    try:
        return round((3600 * int(hours) + 60 * int(minutes) + float(seconds)) * 1000)
    except (ValueError, OverflowError):  # nan and inf among them
        raise ValueError(f'column {head}: {text!r} is no time; expected seconds, as 30.5 or 1:05.5') from None


def read_clip(text: str, head: str) -> tuple[str, int | None, int | None]:
    """Video, start and end (ms; None: not told) of a cell that names a clip. A whole number from 10,000 on is ms, and
    so are all of AudioSet's segment_id."""
    if found := CLIP.fullmatch(text):
        ytid, start, end = found.groups()
        in_ms = re.search(r'_[1-9]\d{4,}(_|\.[A-Za-z]|$)', text[11:]) or (head == 'segment_id' and '.' not in text)
        return ytid, *(time and round(float(time) * (1 if in_ms else 1000)) for time in (start, end))
    found, shown = LINK.fullmatch(text), textwrap.shorten(text, 60, placeholder='…')
    expected = 'an id of 11 characters, Y<id>.wav, <id>_<start>_<end>, a link'
    require(found, f'column {head}: {shown!r} names no video; expected {expected}')
    times = {name: milliseconds(time, head) for name, time in re.findall(r'[?&#](t|start|end)=([^&#]+)', text)}
    return found[1], times.get('t', times.get('start')), times.get('end')


def distinct(texts: Iterable[str]) -> tuple[str, ...]:
    """The same without what is empty or repeated."""
    return tuple(filter(None, dict.fromkeys(texts)))


def read_texts(text: str, between: re.Pattern | None = None) -> list[str]:
    """The texts in a cell: of a list as Python writes it, or what stands between separators."""
    if text[:1] == '[':
        with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return [str(item).strip() for item in ast.literal_eval(text)]
    return between.split(text) if between else [text]


@functools.lru_cache(1 << 16)
def read_classes(*cells: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The MIDs in some cells, and the other names of classes."""
    found = distinct(text for cell in cells for text in read_texts(cell, SEVERAL))
    return tuple(name for name in found if name[0] == '/'), tuple(name for name in found if name[0] != '/')


def read_row(cells: dict[str, Any], columns: dict[str, str], names: dict[str, str]) -> Row:
    """What cells, by their heads, ask for; ValueError names the one that is wrong. `names`: of MIDs."""
    told = {tells: cells.pop(head, None) for tells, head in columns.items()}
    texts = {tells: text for tells, cell in told.items() if cell is not None and (text := str(cell).strip())}
    times = {tells: milliseconds(texts[tells], columns[tells]) for tells in TIMES if tells in texts}
    ytid, start, end = read_clip(texts.get('ytid', ''), columns['ytid'])
    if 'start' in times:
        start, end = times['start'], None
    if 'duration' in times and start is None:
        cells[columns['duration']] = told['duration']
    elif 'duration' in times:
        end = start + times['duration']
    begin, end = start or 0, times.get('end', end)
    stop = begin + round(1000 * LENGTH) if end is None else end
    require(0 <= begin < stop < DAY * 1000, f'no clip from {begin / 1000} to {stop / 1000} s')
    tags, labels = read_classes(texts.get('tags', ''), texts.get('label', ''))
    events = None
    if 'onset' in times:
        begin, stop = times['onset'], times.get('offset', -1)
        require(0 <= begin <= stop, f'no event from {begin / 1000} to {stop / 1000} s')
        heard = [(tag, names.get(tag, tag)) for tag in tags] + [('', label) for label in labels] or [('', '')]
        events = [{'start': begin / 1000, 'end': stop / 1000, 'tag': tag, 'label': name} for tag, name in heard]
    captions = list(distinct(read_texts(texts['caption']))) if 'caption' in texts else None
    more = {'events': events, 'captions': captions, 'subset': texts.get('subset'), 'row': [cells] if cells else None}
    return Row(ytid, start, end, tags, labels, {name: told for name, told in more.items() if told is not None})


def read_plain(line: str) -> Row | None:
    if plain := PLAIN_ROW.fullmatch(line):
        ytid, start, end, tags = plain.groups()
        if (begin := round(float(start) * 1000)) < (until := round(float(end) * 1000)) < DAY * 1000:
            return Row(ytid, begin, until, distinct(tags.split(',')))
    return None


# ------------------------------------------------------------------------------------------------------------ tables
@contextlib.contextmanager
def open_list(path: Path) -> Iterator[TextIO]:
    opened = gzip.open if path.suffix == '.gz' else open
    try:
        with opened(path, 'rt', encoding='utf-8-sig', errors='replace', newline='\n') as file:
            yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UsageError(f'{path}: {error}; it is damaged, put it there anew') from None


def read_cells(lines: Iterator[Line], between: str) -> Iterator[tuple[int, Cells]]:
    """The cells of each row, of up to 50 lines where one holds line breaks; a quote that is not closed by then spoils
    its own line only."""
    ahead = list(itertools.islice(lines, 50))
    while ahead:
        texts = (text for _, text in ahead)
        reader = csv.reader(texts, delimiter=between, skipinitialspace=True, strict=True)
        try:
            cells, taken = next(reader), reader.line_num
        except csv.Error as error:
            cells, taken = error, 1
        number = ahead[taken - 1][0]
        ahead = [*ahead[taken:], *itertools.islice(lines, taken)]
        if isinstance(cells, csv.Error) or any(map(str.strip, cells)):
            yield number, cells


def split_lines(lines: list[Line], between: str) -> list[list[str]]:
    return [cells for _, cells in read_cells(iter(lines), between) if isinstance(cells, list)]


def find_objects(document: Any) -> list[Any]:
    """The rows of a JSON document: a list of objects, or the one under a key of it."""
    lists = document.values() if isinstance(document, dict) else [document]
    return next((found for found in lists if isinstance(found, list) and found and isinstance(found[0], dict)), [])


def understand(rows: Iterable[tuple[int, Cells]], form: Form, names: dict[str, str]) -> Iterator[Read]:
    """What rows of cells ask for, or what is wrong with them."""
    needed, last = max(map(form.heads.index, form.columns.values())) + 1, len(form.heads) - 1
    texts = form.heads[last] in [form.columns.get(of) for of in ('tags', 'label', 'caption')]
    for number, cells in rows:
        try:
            if isinstance(cells, list):
                require(len(cells) >= needed, f'{len(cells)} of {needed} cells; expected {", ".join(form.columns)}')
                cells = [*cells[:last], form.between.join(cells[last:])] if texts else cells  # its quotes are missing
                cells = dict(zip(itertools.chain(form.heads, map(str, itertools.count(last + 2))), cells, strict=False))
                cells.pop('', None)
            elif isinstance(cells, str):
                cells = read_json(cells)
            if not isinstance(cells, dict):
                raise cells if isinstance(cells, Exception) else ValueError('expected an object in { }')
            row = read_row(cells, form.columns, names)
        except (ValueError, csv.Error) as error:
            row = error
        yield number, row


def read_rows(path: Path, form: Form, names: dict[str, str], done: int = 0) -> Iterator[Read]:
    """A list's rows, or what is wrong with them, behind so many lines (of a document: objects), and their numbers."""
    with open_list(path) as file:
        rows = enumerate(find_objects(read_json(file.read())) if form.between == 'json' else file, 1)
        rows = itertools.islice(rows, max(done, form.line), None)
        lines = rows if form.line else (line for line in rows if not line[1].startswith('#'))
        if form.between == 'json':
            yield from understand(rows, form, names)
        elif form.between == 'jsonl':
            yield from understand((line for line in lines if line[1].strip()), form, names)
        elif form.between == ',' and form.heads == [form.columns.get(of) for of in ('ytid', 'start', 'end', 'tags')]:
            for line in lines:  # as in AudioSet's own
                if row := read_plain(line[1]):
                    yield line[0], row
                else:
                    yield from understand(read_cells(iter([line]), form.between), form, names)
        else:
            yield from understand(read_cells(lines, form.between), form, names)


def name_columns(heads: list[str], own: dict[str, str], found: dict[str, str] | None = None) -> dict[str, str]:
    """What columns tell -> their heads: as the user has it, as found, or by the table of names."""
    plain = {re.sub(r'\W+', '_', head.lower()).strip('_'): head for head in reversed(heads)}
    names = {of: next((plain[name] for name in known.split() if name in plain), '') for of, known in COLUMNS.items()}
    if any(plain.keys() >= known for known in EVENTS):
        names |= {'onset': names['start'], 'offset': names['end'], 'start': '', 'end': ''}
    own = {tells: head for tells, head in own.items() if head in ('', *heads)}
    found = {tells: head for tells, head in (found or names).items() if head not in own.values()}
    return {tells: head for tells, head in (found | own).items() if head}


def guess_columns(cells: list[str]) -> dict[str, str]:
    """What the columns of a list without heads tell -> their numbers, by how a row of it looks."""
    columns = dict[str, str]()
    for number, cell in enumerate(cells, 1):
        fits = [of for of, shape in SHAPES.items() if of not in columns and re.fullmatch(shape, cell.strip(), re.A)]
        if fits and ('ytid' in columns or fits[0] not in ('start', 'end')):
            columns[fits[0]] = str(number)
    return columns


def find_forms(lines: list[Line], between: str, own: dict[str, str]) -> Iterator[tuple[int, Form]]:
    """Forms that a list with this between its cells may have, and how many of its first lines they understand."""
    first = next((n for n, line in enumerate(lines) if not line[1].startswith('#')), 0)
    for line in lines[: first + 1]:  # the heads may be in a comment
        for cells in split_lines([line], between):
            heads = [re.sub(r'^(Unnamed: \d+|#?\s+)', '', cell) for cell in cells]  # pandas' index has none
            yield len(lines), Form(name_columns(heads, own), heads, between, 0 if line[1][:1] == '#' else line[0])
    links = 'youtu' if between == '&' else '\n\n'
    found = Counter[tuple]()
    for cells in split_lines([line for line in lines[first:] if links not in line[1]], between):
        while len(cells) > 1 and cells[-1][:1] == cells[-2][:1] == '/':
            cells.pop()  # the quotes around the tags are missing
        found[tuple(guess_columns(cells).items()), len(cells)] += 1
    for (columns, width), count in found.items():
        heads = [str(n) for n in range(1, width + 1)]
        yield count, Form(name_columns(heads, own, dict(columns)), heads, between)


def parse_json(line: str) -> Any:
    with contextlib.suppress(ValueError):
        return read_json(line)


def find_json(path: Path, lines: list[Line], own: dict[str, str]) -> Form:
    """The form of a list of JSON objects: one a line, or a document that holds them."""
    objects, between = [parse_json(line) for _, line in lines], 'jsonl'
    if not isinstance(objects[0], dict) or (len(lines) == 1 and find_objects(objects[0])):
        with open_list(path) as file:
            objects, between = find_objects(parse_json(file.read()))[:50], 'json'
    heads = list(dict.fromkeys(head for cells in objects if isinstance(cells, dict) for head in cells))
    return Form(name_columns(heads, own), heads, between)


def recognise(path: Path, own: dict[str, str]) -> Form:
    """The form of a list, by its first lines. `own`: what columns tell -> the user's names for them."""
    with open_list(path) as file:
        lines = [line for line in enumerate(itertools.islice(file, 50), 1) if line[1].strip()]
    text = lines[0][1] if lines else ''
    if text.lstrip()[:1] in ('{', '['):
        found = [(1, find_json(path, lines, own))]
    else:
        found = [form for between in ',\t;&' for form in find_forms(lines, between, own)]
    forms = [(count, len(form.columns), form) for count, form in found if 'ytid' in form.columns]
    shown = textwrap.shorten(text, 80, placeholder='…')
    expected = 'a head that names the column of the video (see README, or set columns), or rows as AudioSet has'
    require(forms, f'{path}: its first line {shown!r} is not understood; expected {expected}')
    return max(forms, key=operator.itemgetter(0, 1))[2]


# ------------------------------------------------------------------------------------------------------------- lists
def rank_of(split: str) -> int:
    """AudioSet's lists come first: they name the clips that others share."""
    return (WEAK + STRONG).index(split) if split in WEAK + STRONG else 9


def find_list(settings: Settings, *names: str) -> Path:
    """The first of these files that is in the root's csvs/, else in the script's; where the first belongs, if none."""
    folders = settings.csvs, Path(__file__).resolve().parent / 'csvs'
    found = (folder / name for folder in folders for name in names if (folder / name).exists())
    return next(found, settings.csvs / names[0])


def list_path(settings: Settings, split: str) -> Path:
    """Where a list is, or belongs."""
    published = f'audioset_{split}.tsv' if split in STRONG else f'{split}{"" if split in OTHERS else "_segments"}.csv'
    ends = [f'.{end}{packed}' for packed in ('', '.gz') for end in ('csv', 'tsv', 'txt', 'json', 'jsonl')]
    stems = f'{split}_segments', split, f'audioset_{split}', f'audioset_{split}_segments'
    return find_list(settings, published, *(stem + end for stem in stems for end in ends))


def name_of(split: str) -> str:
    """What a list is called, which may be told by its address."""
    file = urllib.parse.urlsplit(split).path.rpartition('/')[2]
    return re.sub(r'(_segments)?(\.(csv|tsv|txt|jsonl?))?(\.gz)?$', '', file) if '://' in split else split


def nearest(name: str, known: Collection[str], most: int = 3) -> str:
    """'; did you mean ...?' with the likeliest of the known names, those that begin so before those that look so."""
    begin = [one for one in known if one.casefold().startswith(name.casefold())]
    alike = difflib.get_close_matches(name.casefold(), plain := {one.casefold(): one for one in known}, 3, 0.5)
    found = list(dict.fromkeys([*begin, *(plain[one] for one in alike)]))[:most]
    return f'; did you mean {" or ".join(map(repr, found))}?' if found else ''


def find_classes(names: list[str], labels: dict[str, str], below: dict[str, list[str]], known: set[str]) -> set[str]:
    """The MIDs, and the names in lower case, of these classes and those below them. `known`: names without a MID."""
    plain = {name: name for name in known} | {label.casefold(): label for label in labels.values()}
    found, todo = {name.casefold() for name in names} & known, list[str]()
    for name in names:
        meant = [tag for tag, label in labels.items() if name == tag or name.casefold() == label.casefold()]
        hint = nearest(name, plain.values())
        require(meant or name.casefold() in known, f'{name!r} is no class of these lists{hint}')
        todo += meant
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
        """For each row 1 if it is taken: class by class, rare ones first, rows that exceed another's number last."""
        rows = list(classes)
        counted = {found: [name for name in found if self.takes(found) and self.takes([name])] for found in set(rows)}
        members = defaultdict[str, list[int]](list)  # class -> indexes of its rows
        for index, found in enumerate(rows):
            for name in counted[found]:
                members[name].append(index)
        picked = bytearray(not found and self.takes(found) for found in rows)  # what has no class is nobody's share
        count = Counter[str]()
        for name in sorted(members, key=lambda name: (len(members[name]), name)):
            order = members[name] if count[name] < self.per_label else []
            random.Random(f'{self.seed} {name}').shuffle(order)
            order.sort(key=lambda index: sum(count[of] >= self.per_label for of in counted[rows[index]]))
            for index in order:
                if count[name] < self.per_label and not picked[index]:
                    picked[index] = 1
                    count.update(counted[rows[index]])
        return picked


BUFFER = 1 << 20  # bytes of a file to write at a time


@contextlib.contextmanager
def replacing(path: Path, mode: str = 'w') -> Iterator[Any]:
    """A file that is written under another name and renamed in the end, so that it is there whole or not at all."""
    made = path.with_name(f'.{path.name}.{platform.node()}-{os.getpid()}')
    text = {} if 'b' in mode else {'encoding': 'utf-8', 'newline': '\n'}
    try:
        with open(made, mode, BUFFER, **text) as out:
            yield out
        os.replace(made, path)
    finally:
        made.unlink(missing_ok=True)


CORPUS = 'https://storage.googleapis.com/us_audioset/youtube_corpus/'
ONTOLOGY = 'https://raw.githubusercontent.com/audioset/ontology/master/'
FOLDERS = {'.csv': f'{CORPUS}v1/csv/', '.tsv': f'{CORPUS}strong/', '.json': ONTOLOGY}  # of AudioSet's files
CAPTIONS = 'https://raw.githubusercontent.com/cdjkim/audiocaps/master/dataset/'
OTHERS = {  # lists that come by themselves, too
    'musiccaps': 'https://huggingface.co/datasets/google/MusicCaps/resolve/main/musiccaps-public.csv',
    'vggsound': 'https://www.robots.ox.ac.uk/~vgg/data/vggsound/vggsound.csv',
    **{f'audiocaps_{part}': f'{CAPTIONS}{part}.csv' for part in ('train', 'val', 'test')},
}


def provide(path: Path, routes: Iterable[str], address: str = '') -> Path:
    """Fetch a file, of AudioSet's if no other address is told, by the first route that works, unless it is there."""
    if path.exists():
        return path
    address, why = address or f'{FOLDERS[path.suffix]}{path.name}', ''
    for route in routes:
        proxy = urllib.request.ProxyHandler({'https': route} if route else None)  # None: the environment's
        try:
            with urllib.request.build_opener(proxy).open(address, timeout=60) as answer:
                content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            why = str(getattr(error, 'reason', error))
        else:
            with replacing(path, 'wb') as out:
                out.write(content)
            say(f'fetched {path.name}')
            return path
    raise UsageError(f'{path} is not there, and {address} cannot be fetched ({why}); put it there yourself')


def open_lists(settings: Settings, splits: list[str]) -> Lists:
    """The lists of these names, fetched where they are missing, and their forms."""
    paths = dict[str, Path]()
    for split in splits:
        path, address = list_path(settings, split), settings.addresses.get(split) or OTHERS.get(split, '')
        if split in settings.addresses and not path.exists():
            path = settings.csvs / urllib.parse.urlsplit(address).path.split('/')[-1]
        if not (path.exists() or address or split in WEAK + STRONG):
            there = [file.name.partition('.')[0].removesuffix('_segments') for file in path.parent.glob('*.*')]
            hint = nearest(split, [*WEAK, *STRONG, *OTHERS, *there])
            raise UsageError(f'splits: there is no list {split!r} ({path} or {split}.csv){hint}')
        paths[split] = provide(path, settings.routes.values(), address)
    return {split: (path, recognise(path, settings.columns)) for split, path in paths.items()}


TABLES: dict[str, Callable[[TextIO], dict[str, Any]]] = {  # AudioSet's other files -> how they are read, by MID
    'class_labels_indices.csv': lambda file: {
        row['mid']: (row['display_name'], row.get('index') or '') for row in csv.DictReader(file)
    },
    'mid_to_display_name.tsv': lambda file: dict(line.rstrip('\n').split('\t') for line in file if line.strip()),
    'ontology.json': lambda file: {node['id']: (node['name'], node['child_ids']) for node in json.load(file)},
}


def published(settings: Settings, name: str, needed: bool = True) -> dict[str, Any]:
    """One of AudioSet's other files; nothing where it is not there and not needed."""
    if not (needed or find_list(settings, name).exists()):
        return {}
    path = provide(find_list(settings, name), settings.routes.values())
    with contextlib.suppress(ValueError, KeyError, TypeError, csv.Error), open(path, encoding='utf-8-sig') as file:
        if table := TABLES[name](file):
            return table
    raise UsageError(f'{path}: not as AudioSet publishes it; delete it to fetch it anew')


def read_labels(settings: Settings, needed: bool) -> tuple[dict[str, str], dict[str, str]]:
    """Tag -> label, and tag -> class index."""
    classes = published(settings, 'class_labels_indices.csv', needed)
    return {tag: label for tag, (label, _) in classes.items()}, {tag: index for tag, (_, index) in classes.items()}


# ------------------------------------------------------------------------------------------------------------ ledger
SCHEMA = """
CREATE TABLE list (       -- a list that was read
    id INTEGER PRIMARY KEY, name TEXT UNIQUE, rank INT,  -- AudioSet's come first
    size INT, mtime_ns INT,                              -- of its file, as it was read
    lines INT, rows INT, skipped INT,                    -- what was read of it; lines that are no rows
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
CREATE TABLE pack (       -- a clip in packs/<list>-<shard>.tar
    list INT, clip INT, shard INT, PRIMARY KEY (list, clip)) WITHOUT ROWID;
CREATE TABLE state (name TEXT PRIMARY KEY, value TEXT);  -- who writes, what was written and learned
CREATE INDEX asked ON asks (clip);
CREATE INDEX left_over ON clip (id) WHERE status IS NULL OR status = 'failed';
"""
SLOW = 150e6  # bytes of a ledger whose metadata take more than 2 s
VERSION, APPLICATION = 1, 0x41534C31  # of the schema; of SQLite's header, 'ASL1'
TO_DO = "(c.status IS NULL OR c.status = 'failed')"  # as the index `left_over` has it
FATE = 'status, reason, message, settled'
SETTLED = f'{FATE}, path, title, duration, padded, bytes, sha256, format, language'
RECORDED = ['path', 'title', 'duration', 'padded', 'bytes', 'sha256', 'format_id', 'language']  # of a Result's record


OF_VIDEO = "status = 'gone' AND reason <> 'too short'"  # the same in SQL: in a function of ours, a Ctrl-C would be lost


def of_video(status: str | None, reason: str | None) -> bool:
    """Whether what became of a clip holds for every second of its video."""
    return status == GONE and reason != 'too short'


def make_of(s: Settings) -> str:
    """What decides how a clip sounds and looks, as the names of the ledgers have it: wav-16000Hz-mono-padded."""
    sound = [s.sample_rate and f'{s.sample_rate}Hz', s.channels and ('mono', 'stereo')[s.channels - 1]]
    picture = [s.max_height != 360 and f'{s.max_height}p', s.exact_frames and 'exact'] if s.ext == 'mp4' else []
    return '-'.join(filter(None, [s.ext, *sound, s.pad and 'padded', *picture]))


def ledger_path(settings: Settings, shard: str = '') -> Path:
    """Where the ledger of this make and shard is: that of a whole and plain ext stands beside the clips."""
    make, tag = make_of(settings), (shard or settings.shard).replace('/', '-of-')
    name = make if tag == '0-of-1' else f'{make}-{tag}'
    return settings.wavs / ('' if name in ENCODE else 'ledgers') / f'{name}.sqlite3'


def find_ledgers(settings: Settings) -> list[Path]:
    """All ledgers under the root but ours, of every make and shard, also those that other machines brought."""
    whole = [settings.wavs / f'{ext}.sqlite3' for ext in ENCODE]  # named, for to list two million clips takes long
    found = [*whole, *sorted(settings.wavs.glob('ledgers/*.sqlite3'))]
    return [path for path in found if path != settings.ledger and path.exists() and path.stat().st_size]


def made_by(ledger: Path) -> str:
    """The make of a ledger's clips."""
    return re.sub(r'(-\d+-of-\d+)?\.sqlite3$', '', ledger.name)


def find_siblings(settings: Settings) -> list[Path]:
    """Those of our make."""
    return [path for path in find_ledgers(settings) if made_by(path) == make_of(settings)]


def remedy_for(error: sqlite3.Error) -> str:
    return 'name another root' if 'readonly' in str(error) else 'move it away: clips in their places are taken in again'


def uri_of(path: PurePath, mode: str) -> str:
    """How SQLite is told of a file: as_uri() would have it take the server of a share of Windows for an authority."""
    name = urllib.parse.quote(path.as_posix(), safe='/:')
    return f'file://{"" if name[0] == "/" else "/"}{name}?mode={mode}'


def connect_to(path: Path, write: bool) -> sqlite3.Connection:
    """A connection to a file that may be a ledger. Also who reads rolls back what a killed run left, if it may."""
    mode = 'rwc' if write else 'rw' if os.access(path, os.W_OK) else 'ro'
    db = sqlite3.connect(uri_of(path.absolute(), mode), timeout=60, uri=True, isolation_level=None)
    try:
        db.execute('SELECT 1 FROM sqlite_master').fetchone()
    except sqlite3.OperationalError:  # a file system without shared memory, which WAL wants
        db.execute('PRAGMA locking_mode = EXCLUSIVE')
    return db


def open_db(path: Path, write: bool) -> sqlite3.Connection:
    """Open a ledger; UsageError for what is none, is damaged or comes of a later version: that is not written to."""
    new = write and not (path.exists() and path.stat().st_size)
    make = f'BEGIN; {SCHEMA} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}; COMMIT'
    try:
        db = connect_to(path, write)
        program, version = (db.execute(f'PRAGMA {of}').fetchone()[0] for of in ('application_id', 'user_version'))
        require(new or program == APPLICATION, f'{path}: not a ledger of this script; move it away')
        later = f'{path} was written by a later version of this script; update it, or name another root'
        require(version <= VERSION, later)
        db.executescript(make if new else 'BEGIN IMMEDIATE; ROLLBACK' if write else '')
        db.execute('SELECT * FROM clip, asks, list, tagset, state LIMIT 1').fetchone()
    except sqlite3.Error as error:
        if shutil.disk_usage(path.parent).free < 1e6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
        raise UsageError(f'{path}: {error}; {remedy_for(error)}') from None
    return db


def ask_ledger(path: Path, query: str, *values: Any) -> Any:
    """The first value that a query over a ledger brings, None if there is none; whoever writes it goes on."""
    with contextlib.closing(open_db(path, write=False)) as db:
        return (db.execute(query, values).fetchone() or [None])[0]


COUNT_DONE = "SELECT count(*) FROM clip WHERE status = 'done'"
STATE = 'SELECT value FROM state WHERE name = ?'


def names_in(path: Path) -> list[str]:
    """The templates after which the clips of a ledger are named."""
    return json.loads(ask_ledger(path, STATE, 'names') or '[]')


def check_make(settings: Settings) -> list[Path]:
    """The ledgers of other makes whose clips have the same files as ours; UsageError if we may not replace them."""
    others = [path for path in find_ledgers(settings) if made_by(path) != make_of(settings)]
    alike = [path for path in others if made_by(path).split('-')[0] == settings.ext]
    rivals = [path for path in alike if settings.name in names_in(path)]
    counts = [] if settings.remake else [(ask_ledger(path, COUNT_DONE), made_by(path)) for path in rivals]
    theirs = ', '.join(f'{count} clips of {make}' for count, make in counts if count)
    ways = 'name another root or another `name`, or set remake to replace them one by one'
    require(not theirs, f'{settings.wavs} holds {theirs}, whose files {make_of(settings)} shares; {ways}')
    return rivals


def claim(path: Path, patience: float = 0) -> contextlib.AbstractContextManager:
    """Be the one writer of a ledger until the block ends, where the file system has locks; UsageError names who is."""
    try:
        return filelock.FileLock(path.with_name(f'.{path.stem}.lock'), timeout=patience).acquire()
    except filelock.Timeout:
        who = None
        with contextlib.suppress(UsageError, OSError, sqlite3.Error):
            who = ask_ledger(path, STATE, 'writer')
        raise UsageError(f'{path} is in use by {who or "another run"}; wait for it, or name another root') from None
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
            raise
        return contextlib.nullcontext()


def take_turns(settings: Settings, patience: float = DAY) -> contextlib.AbstractContextManager:
    """Wait for others that look at the ledger of all shards, too, rather than end because it is in use."""
    path = settings.wavs / f'{make_of(settings)}-ledgers'
    try:
        return claim(path)
    except UsageError as busy:
        say(f'{busy}'.partition(';')[0] + ': waiting for it')
        return claim(path, patience)


def clean(value: Any) -> Any:
    """Without halves of characters, which SQLite refuses."""
    return value.encode(errors='replace').decode() if isinstance(value, str) else value


class Ledger(contextlib.AbstractContextManager):
    """The one thing that remembers: what is asked for, what became of it. One writer; whoever reads need not wait."""

    def __init__(self, settings: Settings, write: bool = True, path: Path | None = None) -> None:
        self.path, self.settings, self.write = path or settings.ledger, settings, write
        self.sharded, self.rivals = '-of-' in self.path.name, list[Ledger]()  # rivals: ledgers whose clips we replace
        self.db = open_db(self.path, write)
        self.committed = time.monotonic()
        if write:
            mode = 'DELETE' if self.sharded else 'WAL'  # WAL wants one host; shards may share a network file system
            self.db.execute(f'PRAGMA journal_mode = {mode}')
            self.db.execute('PRAGMA synchronous = NORMAL')
            self.db.execute('PRAGMA cache_size = -24000')  # KiB; the unique index is filled in no order
            self.set('writer', f'process {os.getpid()} on {platform.node()}')

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(sqlite3.Error):  # a full disk
            self.commit(at_once=True, patience=60)
        self.db.close()

    def get(self, name: str) -> str:
        return (self.db.execute(STATE, (name,)).fetchone() or [''])[0]

    def set(self, name: str, value: str) -> None:
        self.db.execute('INSERT OR REPLACE INTO state VALUES (?, ?)', (name, value))

    def add_names(self, *names: str) -> None:
        """Note after which templates clips are named."""
        self.set('names', json.dumps(sorted({*json.loads(self.get('names') or '[]'), *names})))

    @contextlib.contextmanager
    def changing(self, at_once: bool = False) -> Iterator[None]:
        """Changes that belong together; a Ctrl-C within takes them back. What was written out before is out of date."""
        if not self.db.in_transaction:
            self.db.execute('BEGIN IMMEDIATE')
        self.db.execute('SAVEPOINT together')
        try:
            if self.get('written'):
                self.set('written', '')
            yield
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # a full disk has taken it back already
                self.db.execute('ROLLBACK TO together')
            raise
        self.db.execute('RELEASE together')
        self.commit(at_once)

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
        segment, reason = result.segment, None if result.verdict == DONE else result.reason
        fate = (result.status, reason, reason and clean(result.message), time.time())
        told = [clean(result.record.get(name)) for name in RECORDED]
        marks = ', '.join('?' * (len(fate) + len(told)))
        change = f'UPDATE clip AS c SET ({FATE}) = (?, ?, ?, ?) WHERE ytid = ? AND'
        with self.changing():
            self.db.execute(f'UPDATE clip SET ({SETTLED}) = ({marks}) WHERE id = ?', (*fate, *told, segment.clip))
            if result.verdict == DONE:  # so the video is there after all
                self.db.execute(f'{change} {OF_VIDEO}', (*[None] * 4, segment.ytid))
            elif of_video(result.verdict, result.reason):
                self.db.execute(f'{change} {TO_DO}', (*fate, segment.ytid))

    def learned(self) -> dict[str, Learned]:
        """What the routes have learned in former runs."""
        return {name: Learned(*told) for name, *told in self.db.execute('SELECT name, budget, refused, at FROM route')}

    def remember(self, learned: dict[str, Learned]) -> None:
        """Keep what the routes have learned."""
        if new := learned.items() - self.learned().items():
            with self.changing():
                rows = [(name, *told) for name, told in new]
                self.db.executemany('INSERT OR REPLACE INTO route VALUES (?, ?, ?, ?)', rows)

    def reopen(self, where: str, *values: Any) -> None:
        """Have clips fetched anew."""
        empty = ', '.join(f'{name} = NULL' for name in SETTLED.split(', '))
        with self.changing():
            self.db.execute(f'UPDATE clip SET {empty} WHERE {where}', values)


# -------------------------------------------------------------------------------------------------------------- load
class Known(NamedTuple):
    """A clip that the ledger has."""

    id: int
    name: str
    start: int  # ms
    end: int  # ms
    status: str | None = None
    reason: str | None = None
    message: str | None = None
    settled: float | None = None


def is_meant(clip: Known, row: Row) -> bool:
    """Whether a row asks for a clip; one without an end means AudioSet's, however long that is."""
    if row.end is None:
        return row.start == clip.start and (clip.end - clip.start == 1000 * LENGTH or len(clip.name) == 14)
    return (row.start, row.end) == (clip.start, clip.end)


def new_clip(id: int, row: Row, others: list[Known], plain: bool) -> Known:
    """A clip that nobody asked for yet. AudioSet's are named by their video alone; it is gone with its video."""
    end = row.end if row.end is not None else row.start + round(1000 * LENGTH)
    mark = f'_{row.start}' + (f'_{end}' if end - row.start != 1000 * LENGTH else '')
    name = f'id_{row.ytid}' + ('' if plain and all(len(other.name) != 14 for other in others) else mark)
    lost = next((other for other in others if of_video(other.status, other.reason)), None)
    there = any(other.status == DONE for other in others)
    return Known(id, name, row.start, end, *(lost[4:] if lost and not there else ()))


def join_rows(row: Row, later: Row) -> Row:
    """Two rows of one list that ask for the same clip, as one."""
    more = {**later.more, **row.more}
    for name, both in (('captions', distinct), ('events', list), ('row', list)):
        if name in more:
            more[name] = list(both([*row.more.get(name, ()), *later.more.get(name, ())]))
    tags, labels = distinct([*row.tags, *later.tags]), distinct([*row.labels, *later.labels])
    return row._replace(tags=tags, labels=labels, more=more)


def label_all(tags: Iterable[str], labels: dict[str, str]) -> list[str]:
    return [labels.get(tag, tag) for tag in tags]


class Batch:
    """Some rows of a list on their way into the ledger: what it knows of their videos, and what is new."""

    def __init__(self, reader: Reader, list_id: int, videos: set[str], times: dict[str, list[int]]) -> None:
        self.reader, self.db, self.list_id, self.times = reader, reader.ledger.db, list_id, times
        self.clips, self.asks = list[tuple](), dict[int, tuple[int, Row]]()  # new ones; clip -> position and its row
        self.former = dict[int, tuple[int, Row]]()  # what the list asks for already
        self.next_id = self.db.execute('SELECT ifnull(max(id), 0) + 1 FROM clip').fetchone()[0]
        self.position = self.db.execute('SELECT rows FROM list WHERE id = ?', (list_id,)).fetchone()[0]
        asks = 'asks a ON a.clip = c.id AND a.list = ? LEFT JOIN tagset t ON t.id = a.tagset'
        tables = f'json_each(?) v JOIN clip c ON c.ytid = v.value LEFT JOIN {asks}'
        query = f'SELECT position, tags, labels, extra, ytid, c.id, name, start_ms, end_ms, {FATE} FROM {tables}'
        self.known = defaultdict[str, list[Known]](list)
        for at, tags, labels, extra, ytid, *told in self.db.execute(query, (json.dumps(sorted(videos)), list_id)):
            self.known[ytid].append(clip := Known(*told))
            if at is not None:
                tags, labels = json.loads(tags), json.loads(labels)
                own = () if labels == label_all(tags, reader.labels) else tuple(labels)
                self.former[clip.id] = at, Row(ytid, clip.start, clip.end, tuple(tags), own, json.loads(extra or '{}'))

    def add(self, row: Row, weak: bool, plain: bool) -> None:
        """Take a row; ValueError if AudioSet's list has it already. `plain`: its clip is named by its video alone."""
        if row.start is None:
            lost = f'{row.ytid} is not in AudioSet, and no start is told; length takes the first seconds'
            require(row.ytid in self.times, lost)
            row = Row(row.ytid, *self.times[row.ytid], *row[3:])
        others = self.known[row.ytid]
        if weak and any(other.id in self.asks or other.id in self.former for other in others):
            raise ValueError(f'{row.ytid} is already a row')
        clip = next((other for other in others if is_meant(other, row)), None)
        if not clip:
            clip = new_clip(self.next_id + len(self.clips), row, others, plain)
            self.clips.append((clip.id, clip.name, row.ytid, *clip[2:]))
            others.append(clip)
        if former := self.asks.get(clip.id) or self.former.get(clip.id):
            self.asks[clip.id] = former[0], join_rows(former[1], row)
        else:
            self.asks[clip.id] = self.position, row
            self.position += 1

    def write(self) -> None:
        columns = f'id, name, ytid, start_ms, end_ms, {FATE}'
        self.db.executemany(f'INSERT INTO clip ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)', self.clips)
        rows = []
        for clip, (at, row) in self.asks.items():
            extra = json.dumps(row.more, ensure_ascii=False) if row.more else None
            rows.append((self.list_id, at, clip, self.reader.tagset(row.tags, row.labels), extra))
        self.db.executemany('INSERT OR REPLACE INTO asks VALUES (?, ?, ?, ?, ?)', rows)


def find_times(reader: Reader, videos: set[str]) -> dict[str, list[int]]:
    """Start and end (ms) of videos: those of AudioSet, whose lists are read as far as needed, else by `length`."""
    ledger, settings, times = reader.ledger, reader.ledger.settings, dict[str, list[int]]()
    tables = 'json_each(?) v JOIN clip c ON c.ytid = v.value JOIN asks a ON a.clip = c.id JOIN list l ON l.id = a.list'
    query = f'SELECT c.ytid, c.start_ms, c.end_ms FROM {tables} WHERE l.rank < 9 ORDER BY l.rank DESC'
    for split in ('', *WEAK):  # at first in what is read already
        if not (lost := videos - times.keys()):
            break
        if split in reader.ids:
            reader.finish(split)
        elif split:
            Reader(ledger, open_lists(settings, [split]), reader.labels, {}).finish()
        times |= {ytid: found for ytid, *found in ledger.db.execute(query, [json.dumps(sorted(lost))])}
    return (dict.fromkeys(videos, [0, round(settings.length * 1000)]) if settings.length else {}) | times


class Reader:
    """Reads lists into the ledger: bit by bit, from where it was; anew what has changed since."""

    SHOWN = 50  # lines that are no rows, and are named

    def __init__(self, ledger: Ledger, lists: Lists, labels: dict[str, str], names: dict[str, str]) -> None:
        self.ledger, self.lists, self.labels, self.names = ledger, lists, labels, labels | names
        self.tagsets, self.unknown, self.shown = dict[tuple, int](), set[str](), 0  # unknown: tags without a label
        self.ids, self.lines = dict[str, int](), dict[str, Iterator[Read]]()  # lines: of what is not read to its end
        self.seen, self.refused, self.changed = Counter[str](), Counter[str](), list[str]()  # rows by list; lists
        for split, (path, form) in lists.items():
            self.ids[split] = self.register(split, path, form)

    def register(self, split: str, path: Path, form: Form) -> int:
        """The list's number; forgets what it asked for if its file is another one now, or is to be read otherwise."""
        db, stat, way = self.ledger.db, path.stat(), f'{form!r} {self.ledger.settings.length}'
        columns = 'id, size, mtime_ns, whole, lines'
        known = db.execute(f'SELECT {columns} FROM list WHERE name = ?', (split,)).fetchone()
        if not self.ledger.write:  # another run reads the lists
            return known[0] if known else -1 - len(self.ids)
        same = known and self.ledger.get(f'form {split}') in ('', way)
        if not same or known[1:3] != (stat.st_size, stat.st_mtime_ns):
            self.changed += [split] if known else []
            told = (known and known[0], split, rank_of(split), stat.st_size, stat.st_mtime_ns)
            with self.ledger.changing(at_once=True):
                new = 'list (id, name, rank, size, mtime_ns, lines, rows, skipped, whole)'
                replaced = db.execute(f'INSERT OR REPLACE INTO {new} VALUES (?, ?, ?, ?, ?, 0, 0, 0, 0)', told)
                db.execute('DELETE FROM asks WHERE list = ?', (replaced.lastrowid,))
                self.ledger.set(f'form {split}', way)
            known = replaced.lastrowid, *told[3:], 0, 0
        if not known[3]:
            self.lines[split] = read_rows(path, form, self.names, known[4])
        return known[0]

    def skip(self, message: str) -> None:
        """Say why a line is no row, unless there are too many."""
        self.shown += 1
        if self.shown <= self.SHOWN:
            say(message if self.shown < self.SHOWN else 'more lines are no rows; the table at the end counts them')

    def tagset(self, tags: tuple[str, ...], labels: tuple[str, ...]) -> int:
        """The number of a set of classes; says once of each tag that it has no label."""
        if (tags, labels) not in self.tagsets:
            for tag in set(tags) - self.labels.keys() - self.unknown:
                self.unknown.add(tag)
                say(f'{tag}: has no label in class_labels_indices.csv, kept as it is')
            named = labels or label_all(tags, self.labels)
            texts = [json.dumps(names, ensure_ascii=False) for names in (tags, named)]
            self.ledger.db.execute('INSERT OR IGNORE INTO tagset (tags, labels) VALUES (?, ?)', texts)
            found = self.ledger.db.execute('SELECT id FROM tagset WHERE (tags, labels) = (?, ?)', texts)
            self.tagsets[tags, labels] = found.fetchone()[0]
        return self.tagsets[tags, labels]

    def step(self, lines: int = 2000, split: str = '') -> None:
        """Read on a little, in this list or in the first one that is not whole."""
        if not (split := split or next(iter(self.lines), '')):
            return
        rows = list(itertools.islice(self.lines[split], lines))
        times = find_times(self, {row.ytid for _, row in rows if isinstance(row, Row) and row.start is None})
        with self.ledger.changing(at_once=True):
            if rows:
                self.take(split, rows, times)
            if len(rows) < lines or self.seen[split] > 1000:
                (path, form), bad, seen = self.lists[split], self.refused[split], self.seen[split]
                require(bad * 2 <= seen, f'{path}: {bad} of {seen} rows are refused (above); it is read as {form}')
            if len(rows) < lines:
                self.ledger.db.execute('UPDATE list SET whole = 1 WHERE name = ?', (split,))
        if len(rows) < lines:
            del self.lines[split]

    def finish(self, split: str = '') -> None:
        """Read a list, or all, to the end."""
        while split in self.lines or (not split and self.lines):
            self.step(10_000, split)

    def take(self, split: str, rows: list[Read], times: dict[str, list[int]]) -> None:
        """Have some rows in the ledger, and say which are none. `times`: of those without."""
        (path, form), before = self.lists[split], self.shown
        videos = {row.ytid for _, row in rows if isinstance(row, Row)}
        batch = Batch(self, self.ids[split], videos, times)
        for number, row in rows:
            try:
                if isinstance(row, Exception):
                    raise row
                batch.add(row, split in WEAK and not form.line, split in WEAK + STRONG)
            except (ValueError, csv.Error) as error:
                self.skip(f'{path.name}, {"row" if form.between == "json" else "line"} {number}: skipped, {error}')
                self.refused[split] += row is error
        batch.write()
        self.seen[split] += len(rows)
        told = (rows[-1][0], batch.position, self.shown - before, self.ids[split])
        self.ledger.db.execute('UPDATE list SET lines = ?, rows = ?, skipped = skipped + ? WHERE id = ?', told)


# ------------------------------------------------------------------------------------------------------------ choose
class Job:
    """What the settings choose of the ledger's rows, and what of that is to do: queries over asks a, the lists of the
    run l and clips c. A row of several lists counts for the first."""

    TABLES = 'asks a JOIN temp.run l ON l.id = a.list JOIN clip c ON c.id = a.clip'

    def __init__(self, reader: Reader, settings: Settings, choice: Choice | None) -> None:
        self.reader, self.db, self.settings, self.choice = reader, reader.ledger.db, settings, choice
        self.began, self.given = time.time(), set[int]()  # given: clips on their way
        self.classes = dict[int, tuple[str, ...]]()  # of each tagset
        picked = 'picked (list INT, position INT, PRIMARY KEY (list, position))'
        for table in 'run (id INTEGER PRIMARY KEY, rank)', 'wanted (id INTEGER PRIMARY KEY)', picked:
            self.db.execute(f'CREATE TEMP TABLE {table}')
        self.db.executemany('INSERT INTO run VALUES (?, ?)', ((id, n) for n, id in enumerate(reader.ids.values())))
        share, shares = map(int, settings.shard.split('/'))
        self.db.create_function('mine', 1, lambda ytid: zlib.crc32(ytid.encode()) % shares == share, deterministic=True)
        self.where = self.choose()
        above = f'b.clip = a.clip AND m.rank < l.rank{self.where.replace("a.", "b.")}'
        self.shared = f' AND EXISTS (SELECT 1 FROM asks b JOIN temp.run m ON m.id = b.list WHERE {above})'
        self.first = self.shared.replace('EXISTS', 'NOT EXISTS', 1) if len(reader.ids) > 1 else ''
        if settings.limit:
            self.limit(settings.limit)
        self.where += ' AND mine(c.ytid)' if shares > 1 else ''

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
        return ' AND EXISTS (SELECT 1 FROM temp.picked p WHERE (p.list, p.position) = (a.list, a.position))'

    def limit(self, left: int) -> None:
        """Choose only the first so many clips; reads the rows that this takes."""
        self.refresh()
        for rank, (split, list_id) in enumerate(self.reader.ids.items()):
            where = f'l.id = {list_id}{self.where}{self.first}'
            first = f'SELECT a.position FROM {self.TABLES} WHERE {where} ORDER BY a.position LIMIT {left}'
            query = f'SELECT count(*), max(position) FROM ({first})'
            while (found := self.db.execute(query).fetchone())[0] < left and split in self.reader.lines:
                for _ in range(found[0], left, 2000):  # as many as are missing, before they are counted again
                    self.reader.step(2000)
                self.refresh()
            left -= found[0]
            if not left:
                self.where += f' AND (l.rank, a.position) <= ({rank}, {found[1]})'
                return

    def refresh(self) -> None:
        """Learn the sets of classes that were read since, and which of them are wanted."""
        query, known = 'SELECT id, tags, labels FROM tagset WHERE id > ?', next(reversed(self.classes), 0)
        for id, tags, labels in self.db.execute(query, (known,)).fetchall():
            tags, labels = json.loads(tags), json.loads(labels)
            self.classes[id] = (*tags, *(labels if labels != label_all(tags, self.reader.labels) else ()))
            if self.choice and self.choice.takes(self.classes[id]):
                self.db.execute('INSERT INTO wanted VALUES (?)', (id,))

    def counts(self, *by: str, of: str | None = None) -> Counter[tuple]:
        """How many clips there are by these columns, status and reason ('' of what was not tried or is done). Each
        counts for its first list, unless `of` says else."""
        self.refresh()
        columns = ', '.join([*by, "ifnull(c.status, '')", "ifnull(c.reason, '')"])
        where = self.where + (self.first if of is None else of)
        query = f'SELECT count(*), {columns} FROM {self.TABLES} WHERE true{where} GROUP BY {columns}'
        return Counter({tuple(key): n for n, *key in self.db.execute(query)})

    def rows(self) -> Iterator[Segment]:
        """The rows to do, in the order of the lists, each once; reads on where that is needed."""
        after, again = 0, bool(self.reader.lines)  # what was asked for before its list changed may stand behind us
        to_do = f'{TO_DO} AND c.id > ? AND (c.status IS NULL OR c.settled < ?)'
        while True:
            if found := self.find(to_do, after, self.began, most=1):  # the next one's video may be gone by then
                after = found[0].clip
                if after not in self.given:
                    self.given.add(after)
                    yield found[0]
            elif self.reader.lines and not self.settings.limit:
                after = self.db.execute('SELECT ifnull(max(id), 0) FROM clip').fetchone()[0]
                self.reader.step()
            elif again:
                after, again = 0, False
            else:
                return

    def find(self, condition: str, *values: Any, most: int = 200) -> list[Segment]:
        """Some of the chosen rows, by clip, as their first list has them."""
        self.refresh()
        columns = 'c.id, c.name, c.ytid, c.start_ms / 1000.0, c.end_ms / 1000.0, s.name, a.position'
        tables = 'clip c CROSS JOIN asks a ON a.clip = c.id JOIN temp.run l ON l.id = a.list JOIN list s ON s.id = l.id'
        query = f'SELECT {columns} FROM {tables} WHERE {condition}{self.where} ORDER BY c.id, l.rank LIMIT {most}'
        found = dict[int, Segment]()
        for id, name, *told in self.db.execute(query, values):
            found.setdefault(id, Segment(*told, id=name, clip=id))
        return list(found.values())


def count_skipped(job: Job) -> int:
    """Lines of the lists that are no rows."""
    return job.db.execute('SELECT ifnull(sum(skipped), 0) FROM list JOIN temp.run USING (id)').fetchone()[0]


def reopen_gone(job: Job, reasons: list[str]) -> None:
    """Have the rows that are gone for one of these reasons asked for once more."""
    if not job.settings.limit:
        job.reader.finish()
    job.refresh()
    within = f"SELECT c.id FROM {job.TABLES} WHERE c.status = 'gone'{job.where}"
    where = f'reason IN (SELECT value FROM json_each(?)) AND id IN ({within})'
    job.reader.ledger.reopen(where, json.dumps(reasons))


# ---------------------------------------------------------------------------------------------------------- metadata
RECORDS = """
SELECT c.name, l.name, c.path, a.extra,
    (c.language IS NULL) + 2 * (c.padded IS NULL) + 4 * (t.tags = '[]') + 8 * (t.labels = '[]'),  -- the record's shape
    CAST(printf('{"id":"%s","ext":"%s","path":%s,"title":%s,"url":"https://www.youtube.com/watch?v=%s","tags":%s,'
        || '"labels":%s,"ytid":"%s","split":"%s","start":%s,"end":%s,"duration":%s,"format_id":%s%s%s}',
        c.name, ?, json_quote(c.path), json_quote(c.title), c.ytid, t.tags, t.labels, c.ytid, l.name,
        c.start_ms / 1000.0, c.end_ms / 1000.0, json_quote(c.duration), json_quote(c.format),
        iif(c.language IS NULL, '', ',"language":' || json_quote(c.language)),
        iif(c.padded IS NULL, '', ',"padded":' || c.padded)) AS BLOB)
FROM clip c CROSS JOIN asks a ON a.clip = c.id JOIN list l ON l.id = a.list JOIN tagset t ON t.id = a.tagset
WHERE c.status = 'done' {only} ORDER BY c.id, a.list, a.position"""
MANIFEST = ['path', 'ytid', 'start', 'end', 'duration', 'tags', 'classes', 'labels']
MISSING = ['ytid', 'start', 'end', 'reason', 'message', 'since', 'tags', 'classes', 'labels']


def join_records(records: list[dict[str, Any]]) -> dict[str, Any]:
    """What all lists tell of a clip: the first one's comes first, nothing else is replaced. Of strong labels beside
    weak ones only the events count."""
    record, *others = records
    for other in others:
        record.setdefault('lists', [record['split']]).append(split := other['split'])
        record |= {'row': record.get('row', []) + other['row']} if 'row' in other else {}
        for field in ('captions', 'events', *(('labels', 'tags') if split not in STRONG else ()), 'subset'):
            value, ours = other.get(field, []), record.get(field, [])
            if field in ('events', 'captions') and value and not ours:
                record[field] = value
                continue
            values, ours = ([of] if isinstance(of, str) else of for of in (value, ours))
            if any(item not in ours for item in values):
                plain = [item if isinstance(item, str) else json.dumps(item) for item in values]
                record.setdefault('also', []).append({'list': split, 'field': field, 'values': plain})
    return record


def read_records(db: sqlite3.Connection, ext: str, clips: str = '') -> Iterator[tuple[str, str, str, Any, bytes]]:
    """Name, split, path, shape (records of one shape have the same fields) and record (JSON) of each clip that is
    there, or of some, whose numbers are given as JSON."""
    query = RECORDS.replace('{only}', 'AND c.id IN (SELECT value FROM json_each(?))' if clips else '')
    for name, group in itertools.groupby(db.execute(query, (ext, *filter(None, [clips]))), operator.itemgetter(0)):
        rows = list(group)
        if len(rows) > 1:
            rows.sort(key=lambda row: rank_of(row[1]))
        _, split, path, extra, shape, text = rows[0]
        if extra or len(rows) > 1:
            record = join_records([json.loads(text) | json.loads(extra or '{}') for *_, extra, _, text in rows])
            heads = {head: None for row in record.get('row', ()) for head in row}
            text, shape = json.dumps(record, ensure_ascii=False).encode(), ' '.join([str(shape), *record, *heads])
        yield name, split, path, shape, text


def write_records(db: sqlite3.Connection, settings: Settings) -> Counter[str]:
    """Make audioset_metadata.json, an id and its record a line, and metadata.jsonl for Hugging Face's audiofolder; that
    learns columns and their types from the first lines, so there one of each shape comes first. Returns how many
    records there are of each split."""
    count, heads = Counter[str](), dict[Any, bytes]()
    with tempfile.TemporaryFile('w+b', BUFFER, dir=settings.wavs) as body, replacing(settings.metadata, 'wb') as out:
        out.write(b'{')
        for name, split, path, shape, record in read_records(db, settings.ext):
            out.write(b'%b\n"%b": %b' % (b',' if count else b'', name.encode(), record))
            line = b'{"file_name": "%b", %b\n' % (path.removeprefix('wavs/').encode(), record[1:])
            if shape in heads:
                body.write(line)
            else:
                heads[shape] = line
            count[split] += 1
        out.write(b'\n}\n')
        body.seek(0)
        with replacing(settings.wavs / 'metadata.jsonl', 'wb') as listing:
            listing.writelines(heads.values())
            shutil.copyfileobj(body, listing, BUFFER)
    return count


def write_for_trainers(settings: Settings, split: str, manifest: Path) -> list[Path]:
    """A manifest as the recipes of the presets read it: AST's (and SSAST's, CAV-MAE's) datafile_<split>.json; for PANNs
    <split>_segments.csv, whose first three lines it skips."""
    name = {'ast': f'datafile_{split}.json', 'panns': f'{split}_segments.csv'}.get(settings.preset)
    if not name:
        return []
    with open(manifest, encoding='utf-8', newline='') as file, replacing(settings.wavs / name) as out:
        rows = csv.DictReader(file)
        if settings.preset == 'panns':
            out.write('# rows whose clips are there\n#\n# YTID, start_seconds, end_seconds, positive_labels\n')
            for row in rows:
                folder, _, file = row['path'].rpartition('/Y')
                if folder == f'wavs/{split}_segments':  # else PANNs would not find it
                    times = ', '.join(f'{float(row[end]):.3f}' for end in ('start', 'end'))
                    out.write(f'{file.removesuffix(".wav")}, {times}, "{row["tags"]}"\n')
        else:
            entries = ({'wav': (settings.root / row['path']).as_posix(), 'labels': row['tags']} for row in rows)
            lines = (json.dumps(entry, ensure_ascii=False) for entry in entries)
            out.write(f'{{"data": [\n{next(lines, "")}')
            out.writelines(f',\n{line}' for line in lines)
            out.write('\n]}\n')
    return [settings.wavs / name]


def write_manifests(job: Job) -> list[Path]:
    """Of what the settings choose, list by list: <split>.csv of the clips that are there, <split>_missing.csv of the
    rows whose clips are not, and why."""
    classes, made = dict[int, list[str]](), list[Path]()  # classes: of each tagset
    indices = read_labels(job.settings, needed=False)[1]
    for id, *texts in job.db.execute('SELECT id, tags, labels FROM tagset'):
        tags, labels = map(json.loads, texts)
        classes[id] = [','.join(tags), ','.join(indices.get(tag, '') for tag in tags), ';'.join(labels)]
    since = "CASE WHEN c.status IS NOT 'done' THEN strftime('%Y-%m-%dT%H:%M:%SZ', c.settled, 'unixepoch') END"
    columns = f'c.ytid, c.start_ms / 1000.0, c.end_ms / 1000.0, c.path, c.duration, c.reason, c.message, {since}'
    query = f'SELECT c.status, a.tagset, {columns} FROM {job.TABLES} WHERE l.id = ?{job.where} ORDER BY a.position'
    for split, list_id in job.reader.ids.items():
        paths = [job.settings.wavs / f'{split}{which}.csv' for which in ('', '_missing')]
        with replacing(paths[0]) as there, replacing(paths[1]) as missing:
            clips, others = (csv.writer(out, lineterminator='\n') for out in (there, missing))
            clips.writerow(MANIFEST)
            others.writerow(MISSING)
            for status, tagset, ytid, start, end, path, duration, *why in job.db.execute(query, (list_id,)):
                if status == DONE:
                    clips.writerow([path, ytid, start, end, duration, *classes[tagset]])
                else:
                    others.writerow([ytid, start, end, why[0] or 'not tried', *why[1:], *classes[tagset]])
        made += [*paths, *write_for_trainers(job.settings, split, paths[0])]
    return made


def stamp(path: Path) -> str:
    """Size and time of a file, '' for none: whether it is the one that was met before."""
    with contextlib.suppress(OSError):
        stat = path.stat()
        return f'{stat.st_size} {stat.st_mtime_ns}'
    return ''


def count_others(settings: Settings) -> Counter[str]:
    """Clips of other makes that are there: of a make's shards together, or of the ledger that has learned from them."""
    whole, shards = Counter[str](), Counter[str]()
    for path in find_ledgers(settings):
        if made_by(path) != make_of(settings):
            (shards if '-of-' in path.name else whole)[made_by(path)] += ask_ledger(path, COUNT_DONE)
    return whole | shards


def learn(ledger: Ledger, path: Path) -> None:
    """Take over what another ledger knows, if it has changed: its lists, and what is settled; of another make,
    only what is gone."""
    known, now = f'learned {path.name}', f'{stamp(path)} {stamp(path.with_name(path.name + "-wal"))}'
    if ledger.get(known) == now:
        return
    names = names_in(path)
    ledger.commit(at_once=True, patience=60)
    ledger.db.execute('ATTACH ? AS other', (uri_of(path.absolute(), 'ro'),))
    try:
        with ledger.changing(at_once=True):
            if alike := made_by(path) == make_of(ledger.settings):
                copy_lists(ledger.db)
                ledger.add_names(*names)
            copy_fates(ledger.db, "('done', 'gone')" if alike else "('gone')")
            ledger.set(known, now)
    finally:
        ledger.commit(at_once=True, patience=60)
        ledger.db.execute('DETACH other')


def copy_fates(db: sqlite3.Connection, statuses: str) -> None:
    """Take over from the attached ledger what became of clips."""
    columns = f'name, ytid, start_ms, end_ms, {SETTLED}'
    told = ', '.join(f'{name} = excluded.{name}' for name in SETTLED.split(', '))
    db.execute(
        f'INSERT INTO clip AS c ({columns}) SELECT {columns} FROM other.clip WHERE status IN {statuses} '
        f'ON CONFLICT (ytid, start_ms, end_ms) DO UPDATE SET {told} '
        f"WHERE {TO_DO} OR (c.status, excluded.status) = ('gone', 'done')"
    )


def copy_lists(db: sqlite3.Connection) -> None:
    """Take over the lists that the attached ledger has read further than ours."""
    columns = 'name, rank, size, mtime_ns, lines, rows, skipped, whole'
    db.execute('INSERT OR IGNORE INTO tagset (tags, labels) SELECT tags, labels FROM other.tagset')
    form = "(SELECT value FROM other.state WHERE name = 'form ' || t.name)"
    our_form = form.replace('other', 'main')  # NULL or '': whoever read it has not said how
    alike = f"t.size = o.size AND {form} IS ifnull(nullif({our_form}, ''), {form})"
    further = f'(t.rows > o.rows AND {alike}) OR (t.whole AND t.mtime_ns > o.mtime_ns)'
    found = f'SELECT o.id, t.id FROM other.list t LEFT JOIN list o USING (name) WHERE o.id IS NULL OR {further}'
    for ours, theirs in db.execute(found).fetchall():
        told = f'SELECT ?, {columns} FROM other.list WHERE id = ?'
        ours = db.execute(f'INSERT OR REPLACE INTO list (id, {columns}) {told}', (ours, theirs)).lastrowid
        db.execute('DELETE FROM asks WHERE list = ?', (ours,))
        way = f"SELECT 'form ' || t.name, ifnull({form}, '') FROM other.list t WHERE t.id = ?"
        db.execute(f'INSERT OR REPLACE INTO state {way}', (theirs,))
        clips, rows = 'name, ytid, start_ms, end_ms', 'other.asks a JOIN other.clip c ON c.id = a.clip'
        ordered = f'SELECT {clips} FROM {rows} WHERE a.list = ? ORDER BY a.position'
        db.execute(f'INSERT OR IGNORE INTO clip ({clips}) {ordered}', (theirs,))
        db.execute(
            f'INSERT INTO asks SELECT ?, a.position, m.id, n.id, a.extra FROM {rows} '
            'JOIN other.tagset t ON t.id = a.tagset JOIN tagset n ON (n.tags, n.labels) = (t.tags, t.labels) '
            'JOIN clip m ON (m.ytid, m.start_ms, m.end_ms) = (c.ytid, c.start_ms, c.end_ms) WHERE a.list = ?',
            (ours, theirs),
        )


def write_shard(path: Path, clips: Iterable[tuple[str, Path, bytes]]) -> None:
    """A tar of clips by their names, each beside its record (JSON), the same whenever it is written."""
    with replacing(path, 'wb') as out, tarfile.open(fileobj=out, mode='w') as tar:
        for key, clip, record in clips:
            for name, content in ((f'{key}{clip.suffix}', clip.read_bytes()), (f'{key}.json', record)):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def pack_list(job: Job, split: str, list_id: int, most: int) -> int:
    """Write the shards of a list; one that is not in the ledger yet is written again. Returns how many clips came."""
    settings, db = job.settings, job.db

    def place_of(shard: int) -> Path:
        return settings.root / 'packs' / f'{split}-{shard:06}.tar'

    for (shard,) in db.execute('SELECT DISTINCT shard FROM pack WHERE list = ?', (list_id,)).fetchall():
        if not place_of(shard).exists():
            db.execute('DELETE FROM pack WHERE (list, shard) = (?, ?)', (list_id, shard))
    next_shard = db.execute('SELECT ifnull(max(shard) + 1, 0) FROM pack WHERE list = ?', (list_id,)).fetchone()[0]
    strange = f'packs/ holds shards of {split} that the ledger does not know; move them away'
    require(not place_of(next_shard + 1).exists(), strange)
    where = f"l.id = ? AND c.status = 'done'{job.where}{job.first}"
    unpacked = 'NOT EXISTS (SELECT 1 FROM pack p WHERE (p.list, p.clip) = (a.list, a.clip))'
    query = f'SELECT a.clip FROM {job.TABLES} WHERE {where} AND {unpacked} ORDER BY a.position'
    clips = [clip for (clip,) in db.execute(query, (list_id,))]
    with tqdm(desc=f'packing {split}', total=len(clips), unit='clip', disable=None) as bar:
        for shard, at in enumerate(range(0, len(clips), most), next_shard):
            packed = clips[at : at + most]
            records = read_records(db, settings.ext, json.dumps(packed))
            write_shard(place_of(shard), ((name, settings.root / path, text) for name, _, path, _, text in records))
            db.execute('BEGIN IMMEDIATE')
            db.executemany('INSERT INTO pack VALUES (?, ?, ?)', ((list_id, clip, shard) for clip in packed))
            db.execute('COMMIT')
            bar.update(len(packed))
    return len(clips)


def is_whole(clip: Path, size: int, digest: str) -> bool:
    """Whether a clip is, to the bit, as the ledger says; OSError where that cannot be seen."""
    with contextlib.suppress(FileNotFoundError):
        return clip.stat().st_size == size and hashlib.sha256(clip.read_bytes()).hexdigest() == digest
    return False


def verify_clips(ledgers: list[Ledger]) -> None:
    """Look at every clip that the first ledger names; those that are not as recorded are to be fetched again."""
    root, db = ledgers[0].settings.root, ledgers[0].db
    count = db.execute(COUNT_DONE).fetchone()[0]
    rows = db.execute("SELECT path, bytes, sha256 FROM clip WHERE status = 'done'")
    clips = tqdm(rows, 'verifying', count, disable=None)
    lost = [path for path, *told in clips if not is_whole(root / path, *told)]
    for path in lost:  # before they are to do: what lies in its place then is taken in
        (root / path).unlink(missing_ok=True)
    for ledger in ledgers if lost else []:
        ledger.reopen('path IN (SELECT value FROM json_each(?))', json.dumps(lost))
    say(f'verified {count} clips: {len(lost)} missing or damaged')


# ----------------------------------------------------------------------------------------------------------- formats
Source = dict[str, Any]  # a format, as yt-dlp describes it, with its `length` (s)
SHORT = 2.0  # s that a format may be shorter than its video, whose length YouTube rounds, and still be whole
SOUND = 'ba{way}/b{way}{low}/b{way}'  # what to make a clip of, as yt-dlp's -f has it, the best first
PICTURE = 'bv{way}{low}{avc}+ba{way}[ext=m4a]/b{way}{low}/bv{way}{low}{avc}+ba{way}/bv{way}{low}+ba{way}'


def format_selector(settings: Settings) -> str:
    """First what comes by https, then what has to be downloaded whole."""
    low, avc = f'[height<={settings.max_height}]', '[vcodec^=avc1]'  # few pipelines decode AV1
    wanted = PICTURE if settings.ext == 'mp4' else SOUND
    return '/'.join(wanted.format(way=way, low=low, avc=avc) for way in ('[protocol=https]', ''))


def originals(formats: list[Source], streams: list[dict[str, Any]]) -> list[Source]:
    """Those without sound or with the original one; `streams` are all that YouTube names, also without an address."""
    tracks = [stream['audioTrack'].get('displayName') or '' for stream in streams if stream.get('audioTrack')]
    kinds = ' '.join(stream.get('mimeType') or '' for stream in streams)
    wanted = 10 if any('original' in track.lower() for track in tracks) else 5  # yt-dlp's for original and default

    def is_original(source: Source) -> bool:
        if (source.get('format_id') or '').endswith('-drc') or 'descri' in (source.get('format_note') or '').lower():
            return False  # of even loudness, or for the blind
        return not tracks or source.get('language_preference') == wanted

    heard = [source for source in formats if source.get('acodec') != 'none']
    ours = [source for source in heard if is_original(source)]
    if heard and not ours:
        raise Refused('the original sound has no address, only other tracks have one')
    if not ours:
        mute = 'video/' in kinds and not re.search('audio/|mp4a|opus', kinds)
        raise Refused('the video has no sound' if mute else 'no format with sound has an address')
    return [source for source in formats if source in ours or source not in heard]


def set_lengths(formats: list[Source], video: float | None) -> list[Source]:
    """Note how long they are, and keep those that are as long as the video, if one of them has sound."""
    for source in formats:
        told = re.search(r'[?&/]dur[=/]([\d.]+)', source.get('url') or '')
        source['length'] = float(told[1]) if told else video + 1 if video else math.inf
    longest = video or max(source['length'] for source in formats)
    whole = [source for source in formats if source['length'] >= longest - SHORT]
    return whole if any(source.get('acodec') != 'none' for source in whole) else formats


def find_end(info: dict[str, Any], sources: list[Source], segment: Segment) -> float:
    """Where the video ends (s), which is where its sound ends; Refused if nothing of the segment is before that."""
    end = min(source['length'] for source in sources)
    if end < min(segment.end, (info.get('duration') or 0) - SHORT):
        raise Refused(f'every format with sound ends at {end:.3f} s, the video at {info["duration"]} s')
    if segment.start + TOO_SHORT >= end:
        raise Refused(f'the video ends at {end:.3f} s, {segment.start} s are wanted')
    return end


HTTP_FLAGS = {  # of ffmpeg 9, which asks for the bytes of the clip and no more, on one connection
    'multiple_requests': 1, 'initial_request_size': 8192, 'short_seek_size': 32768, 'request_size': 65536,
}  # fmt: skip


def network_args(settings: Settings, source: Source, seconds: float, flags: set[str]) -> list[str]:
    """What ffmpeg gets for an address: how long to wait (µs), whom to trust and how much to ask for."""
    size = seconds * 125 * (source.get('tbr') or 1000) * (1 if source.get('ext') == 'm4a' else 1.4)  # as measured
    values = {**HTTP_FLAGS, 'request_size': max(int(size), HTTP_FLAGS['request_size'])}
    args = ['-rw_timeout', f'{settings.timeout * 1e6:.0f}', '-tls_verify', '1', '-ca_file', os.environ['SSL_CERT_FILE']]
    return args + [word for flag in flags for word in (f'-{flag}', str(values[flag]))]


def sound_args(settings: Settings, codec: str) -> list[str]:
    """How ffmpeg makes the sound: AAC stays as it is where AAC is wanted."""
    if settings.ext in ('m4a', 'mp4') and codec.startswith('mp4a') and not (settings.sample_rate or settings.channels):
        return ['-c:a', 'copy', *IN_MP4]
    rate = ['-ar', str(settings.sample_rate)] if settings.sample_rate else []
    count = ['-ac', str(settings.channels)] if settings.channels else []
    return [*ENCODE[settings.ext], *rate, *count]


def seek(start: float) -> list[str]:
    return ['-ss', str(start)] if start else []  # seeking to 0 costs Opus its first packet


def ffmpeg_args(settings: Settings, segment: Segment, sources: list[Source], flags: set[str]) -> dict[str, list[str]]:
    """What ffmpeg gets before each of its inputs and before its output."""
    audio, length = settings.ext != 'mp4', segment.end - segment.start
    exact = ['-c:v', 'libx264', '-preset', 'veryfast', '-crf', '20'] if settings.exact_frames else []
    by_pictures = audio and sources[0].get('vcodec') != 'none'  # it seeks by these, and begins too late
    lead = min(segment.start, 1.0) if by_pictures else 0.0
    sound = sound_args(settings, sources[-1].get('acodec') or '')
    args = {'ffmpeg_o': [*(['-vn'] if audio else exact), *sound, *seek(lead), '-t', str(length)]}
    for n, source in enumerate(sources, 1):
        network = network_args(settings, source, length + lead, flags) if source['protocol'] == 'https' else []
        args[f'ffmpeg_i{n}'] = ['-loglevel', 'error', *network, *seek(segment.start - lead), '-t', str(length + lead)]
    return args


# --------------------------------------------------------------------------------------------------------------- ask
def our_extractor(settings: Settings, stock: type, cheap: bool) -> Any:
    """yt-dlp's YouTube extractor, but for the original sound, and for videos that play for some of the clients that it
    asks: only YouTube's answers name tracks without an address, and yt-dlp tells the first refusal of any client."""
    from yt_dlp.utils import ExtractorError

    sound_only = cheap and settings.ext != 'mp4' and 'format' not in settings.ydl_opts

    class YoutubeIE(stock):  # its name is the key under which yt-dlp looks for its arguments
        streams: list[dict[str, Any]] = []
        plays = False  # for a client, or on the page

        def _extract_player_responses(self, *args: Any, **kwargs: Any) -> Any:
            answers, *rest = super()._extract_player_responses(*args, **kwargs)
            for answer in answers:
                self.plays |= (answer.get('playabilityStatus') or {}).get('status') == 'OK'
                answer.pop('captions', None)
                offer = answer.get('streamingData') or {}
                apart = offer.get('adaptiveFormats') or []
                self.streams += apart + (offer.get('formats') or [])
                if sound_only:  # yt-dlp would spend most of its time on pictures
                    offer['adaptiveFormats'] = [one for one in apart if 'video/' not in (one.get('mimeType') or '')]
            return answers, *rest

        def _real_extract(self, url: str) -> dict[str, Any]:
            self.streams, self.plays = [], False
            try:
                info = super()._real_extract(url)
            except ExtractorError as error:
                if self.plays and judge(error.orig_msg)[0] in ('unavailable', 'other'):
                    raise Refused(f'the video plays, but has no address for us: {error.orig_msg}') from None
                raise
            if 'formats' not in info:  # but the address of a trailer, for one
                raise Refused(f'Video unavailable, YouTube offers {info.get("url")} instead')
            if info.get('live_status') in ('is_live', 'is_upcoming', 'post_live'):
                raise Refused(f'live event: {info["live_status"]}')
            info['formats'] = set_lengths(originals(info['formats'], self.streams), info.get('duration'))
            return info

    return YoutubeIE()


def open_ydl(settings: Settings, warnings: list[str], route: str, cookies: str, cheap: bool) -> Any:
    """A YoutubeDL to keep: the cheap one makes one request per video, the full one does all that yt-dlp can do."""
    import yt_dlp

    def ignore(*_: object) -> None:
        pass

    options: dict[str, Any] = {
        'quiet': True, 'noprogress': True, 'color': 'never', 'nopart': True, 'overwrites': True,
        'logger': argparse.Namespace(debug=ignore, error=ignore, warning=warnings.append),  # some tell what is wrong
        'ffmpeg_location': settings.ffmpeg, 'cookiefile': io.StringIO(cookies) if cookies else None,
        'noplaylist': True, 'socket_timeout': settings.timeout, 'extractor_retries': 0,  # a row is tried again
        'fragment_retries': 3, 'skip_unavailable_fragments': False,  # else what follows a lost one moves
        'compat_opts': {'no-certifi'},  # but what SSL_CERT_FILE names
        'format': format_selector(settings),
        'format_sort': ['quality', 'aext', 'channels:2'],  # Opus of 128 kbit/s before AAC of 48; stereo before 5.1
        **({'proxy': route} if route else {}), **settings.ydl_opts,
    }  # fmt: skip
    if cheap:
        skip = {'player_skip': ['webpage', 'configs', 'js', 'initial_data'], 'skip': ['hls', 'dash', 'translated_subs']}
        client = {'player_client': [settings.client]} if settings.client else {}  # else yt-dlp knows which
        theirs = options.get('extractor_args') or {}
        options['extractor_args'] = {**theirs, 'youtube': {**skip, **client, **theirs.get('youtube', {})}}
        options['js_runtimes'] = {}
    ydl = yt_dlp.YoutubeDL(options, auto_init=False)
    ydl._forceprint = ignore  # else it renders tables of formats that nobody prints
    ydl.add_info_extractor(our_extractor(settings, type(ydl.get_info_extractor('Youtube')), cheap))
    return ydl


def words_of(error: Exception) -> str:
    """What YouTube said, out of yt-dlp's wrappings; what is not YouTube's begins with its type."""
    cause = (getattr(error, 'exc_info', None) or [None, error])[1]
    return getattr(cause, 'orig_msg', None) or f'{type(cause).__name__}: {cause}'


def as_account(settings: Settings, cookies: str) -> bool:
    """Whether YouTube sees an account, which has other limits than a guest."""
    return bool(cookies) or not settings.ydl_opts.keys().isdisjoint(['cookiefile', 'cookiesfrombrowser'])


def find_cause(words: str, warnings: list[str]) -> str:
    """The words of an error, or of the warning that tells its cause; of expired cookies even without an error."""
    vague = words and judge(words)[0] in (*VAGUE, 'no sound', 'no address', 'dubbed', 'damaged')
    for warning in warnings:
        warning = re.sub(r'^\[\S+\] \S+: ', '', warning)  # ids hold any words
        reason, verdict, _ = judge(warning)
        if reason == 'cookies' or (vague and (reason == 'network' or verdict == THROTTLED)):
            return warning
    return words


# what yt-dlp's code, and those of its extractors, raise over what they did not expect
CONFUSED = ArithmeticError, AssertionError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError
CONFUSED += SyntaxError, re.error


class Asker:
    """What a process asks YouTube with: for each route two YoutubeDLs, whose cookies nobody writes down."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.warnings = settings, list[str]()
        self.open_ydl = functools.cache(functools.partial(open_ydl, settings, self.warnings))
        self.ydl: Any = None  # the one that asked last

    def ask(self, task: Task, cheap: bool) -> dict[str, Any]:
        """YouTube's description of a video, formats chosen; Refused if it has none for us."""
        from yt_dlp.utils import YoutubeDLError

        self.ydl, words = self.open_ydl(task.proxy, task.cookies, cheap), ''
        self.warnings.clear()
        try:
            info = self.ydl.extract_info(f'https://www.youtube.com/watch?v={task.segment.ytid}', download=False)
            find_end(info, info.get('requested_formats') or [info], task.segment)
        except (Refused, YoutubeDLError, *CONFUSED) as error:
            words = str(error) if isinstance(error, Refused) else words_of(error)
        if words := find_cause(words, self.warnings):
            raise Refused(words)
        return info

    def ask_twice(self, task: Task) -> tuple[dict[str, Any], bool]:
        """Ask cheaply, and in full where that answer cannot be believed; True if only the full way brought one."""
        if not task.cheap or as_account(self.settings, task.cookies):
            return self.ask(task, cheap=False), False
        try:
            return self.ask(task, cheap=True), False
        except Refused as refused:
            if refused.sure or refused.verdict == THROTTLED:  # a second time would only cost more refusals
                raise
            doubted = refused
        try:
            return self.ask(task, cheap=False), True
        except Refused as refused:
            there = doubted.reason in ('unavailable', 'drm')  # perhaps, if in full it fails for another reason
            if refused.reason in VAGUE and doubted.reason not in VAGUE and not there:
                raise doubted from None
            raise


OURS = {  # options of yt-dlp that this script decides -> what to say of that
    'ffmpeg_location': '; use ffmpeg', 'socket_timeout': '; use timeout', 'proxy': '; use proxies', **dict.fromkeys([
        'quiet', 'noprogress', 'color', 'logger', 'nopart', 'overwrites', 'noplaylist', 'ignoreerrors', 'outtmpl',
        'paths', 'simulate', 'skip_download', 'postprocessors', 'progress_hooks', 'download_ranges',
        'external_downloader', 'external_downloader_args', 'extractor_retries', 'skip_unavailable_fragments',
        'hls_prefer_native', 'ignore_no_formats_error', 'allow_unplayable_formats',
    ], ''),
}  # fmt: skip
NUMBERS = r'\w*(retries|ratelimit|sleep_interval\w*|size|downloads)'  # options of yt-dlp that it computes with


def check_ydl_opts(settings: Settings) -> None:
    """Refuse options for yt-dlp that are ours, or that it cannot take, before anything starts."""
    for name, value in settings.ydl_opts.items():
        require(name not in OURS, f'ydl_opts: {name} is decided by this script{OURS.get(name, "")}')
        fits = type(value) in (int, float, NONE) or not re.fullmatch(NUMBERS, name)
        require(fits, f'ydl_opts: {name} = {value!r}: use a number')
    if not settings.ydl_opts:
        return
    from yt_dlp.utils import YoutubeDLError

    try:
        for cheap in (True, False):
            open_ydl(settings, [], '', '', cheap).cookiejar  # noqa: B018  # reads what it is to read
    except (YoutubeDLError, *CONFUSED) as error:
        text = ' '.join(str(error).removeprefix('ERROR: ').split())
        raise UsageError(f'ydl_opts: yt-dlp does not take them: {type(error).__name__}: {text[:200]}') from None


# -------------------------------------------------------------------------------------------------------------- clip
def shortest_track(path: Path) -> float:
    """Duration in s of what ends first in an mp4, as its edit lists show it; 0 if picture or sound is missing."""
    from mutagen.mp4 import Atoms  # mutagen itself looks at the sound alone

    with open(path, 'rb') as file:
        atoms = Atoms(file)
        _, movie = atoms[b'moov', b'mvhd'].read(file)
        tracks = [track[(b'tkhd',)].read(file)[1] for track in atoms[b'moov'].findall(b'trak')]
    scale, *lengths = [int.from_bytes(number, 'big') for number in (movie[12:16], *(track[20:24] for track in tracks))]
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


def may_adopt(settings: Settings, path: Path) -> bool:
    """Whether a file that is in no ledger is a whole clip that may be of this make."""
    import mutagen

    told_by_file = settings.ext != 'mp4' or (settings.max_height == 360 and not settings.exact_frames)
    if settings.pad or settings.remake or not told_by_file or not path.exists():  # nobody knows how much is silence
        return False
    with contextlib.suppress(mutagen.MutagenError):
        told = getattr(mutagen.File(path), 'info', None)
        wanted = {'sample_rate': settings.sample_rate, 'channels': settings.channels}
        if all(value in (None, getattr(told, name, value)) for name, value in wanted.items()):
            command = [settings.ffmpeg, '-v', 'error', '-xerror', '-i', path, '-f', 'null', '-']
            decoded = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
            return decoded.returncode == 0 and not decoded.stderr
    return False


def place(settings: Settings, segment: Segment) -> Path:
    """Where a clip belongs. Folders of 5000 are what file systems and people can still look into."""
    name, seconds = settings.name.format(**segment._asdict(), part=segment.index // 5000), segment.id[14:]
    return settings.wavs / f'{name}{seconds}.{settings.ext}'


def bring(made: Path, folder: Path) -> Path:
    """Have a finished clip on the disk of wavs/ for good, so that its place is only a renaming away."""
    there = folder / made.name
    shutil.move(made, there, copy_function=shutil.copyfile)  # temps/ may be on another file system
    with open(there, 'rb+') as clip:
        os.fsync(clip.fileno())
    return there


def describe(settings: Settings, path: Path, made: Path, info: Mapping[str, Any], duration: float) -> dict[str, Any]:
    """What the ledger keeps of a clip that is made, and belongs at `path`."""
    told = {name: info[name] for name in ('title', 'format_id', 'language', 'padded') if info.get(name) is not None}
    content = made.read_bytes()
    seen = {'duration': round(duration, 3), 'bytes': len(content), 'sha256': hashlib.sha256(content).hexdigest()}
    return {'path': path.relative_to(settings.root).as_posix(), **told, **seen}


def download(ydl: Any, info: dict[str, Any], source: Source, path: Path, most: float) -> None:
    """Have yt-dlp download a format whole, of so many bytes at most."""
    from yt_dlp.downloader import get_suitable_downloader
    from yt_dlp.utils import DownloadError

    def watch(progress: dict[str, Any]) -> None:
        if (progress.get('downloaded_bytes') or 0) > most:
            raise Refused(f'download: more than {most / 1e6:.0f} MB for a video that only comes whole')

    ydl.params['external_downloader_args'] = {}  # not those of the clip before
    downloader = get_suitable_downloader(source, ydl.params)(ydl, ydl.params)
    downloader.add_progress_hook(watch)
    try:
        downloader.download(str(path), {**info, **source})
    except DownloadError as error:
        raise Refused(f'download: {error}') from None


class Worker:
    """What a process keeps from clip to clip: what it asks YouTube with, a scratch folder, and the words of ffmpeg."""

    def __init__(self, settings: Settings, folder: Path, http_flags: set[str]) -> None:
        from yt_dlp.downloader import external
        from yt_dlp.utils import Popen

        self.settings, self.http_flags, self.asker = settings, http_flags, Asker(settings)
        self.tolerance = 0.2 if settings.ext == 'mp4' else 0.1  # s; containers round, mp4 hides frames
        self.scratch = Path(tempfile.mkdtemp(dir=folder))
        self.log = open(self.scratch / 'ffmpeg.log', 'a+b')  # noqa: SIM115  # for as long as the process lives
        external.Popen = lambda *args, **kwargs: Popen(*args, stderr=self.log, **kwargs)

    def ffmpeg_words(self) -> str:
        self.log.seek(0)
        return self.log.read().decode(errors='replace')

    def run_ffmpeg(self, *args: str | Path) -> None:
        """Over files of ours; what it makes is measured by the caller."""
        command = [self.settings.ffmpeg, '-loglevel', 'error', '-y', *args]
        subprocess.run(command, stdin=subprocess.DEVNULL, stderr=self.log)

    def download_whole(self, info: dict[str, Any], source: Source, folder: Path) -> Source:
        """A file with an index for the cut: over the network, ffmpeg begins up to a segment early in HLS."""
        got = folder / f'{source["format_id"]}.got'
        most = min(LARGEST, shutil.disk_usage(folder).free // (4 * self.settings.num_processes))
        download(self.asker.ydl, info, source, got, most)
        indexed = got.with_suffix('.m4a' if source.get('vcodec') == 'none' else '.mp4')
        self.run_ffmpeg('-i', got, '-map', '0:v?', '-map', '0:a?', '-c', 'copy', '-f', 'mp4', indexed)
        here = {'url': str(indexed), 'protocol': 'file', 'manifest_stream_number': 0}
        return {**source, **here, 'length': measure(indexed) or source['length']}

    def make(self, info: dict[str, Any], sources: list[Source], segment: Segment, flags: set[str], made: Path) -> float:
        """One ffmpeg, started by yt-dlp, makes the final file; returns its duration (s)."""
        from yt_dlp.downloader.external import FFmpegFD
        from yt_dlp.utils import DownloadError

        ydl, both = self.asker.ydl, sources if len(sources) > 1 else None
        self.log.seek(0)
        self.log.truncate()
        ydl.params['external_downloader_args'] = ffmpeg_args(self.settings, segment, sources, flags)
        try:
            FFmpegFD(ydl, ydl.params).download(str(made), {**info, **sources[0], 'requested_formats': both})
        except DownloadError as error:
            raise Refused(f'ffmpeg: {self.ffmpeg_words() or error}') from None
        return measure(made)

    def cut(self, info: dict[str, Any], segment: Segment, made: Path) -> float:
        """Make the final file of the wanted seconds; returns its duration (s)."""
        given = info.pop('requested_formats', None) or [info]
        sources = [one if one['protocol'] == 'https' else self.download_whole(info, one, made.parent) for one in given]
        end = find_end(info, sources, segment)
        wanted, first, last = min(segment.end, end) - segment.start, 0.0, 0.0
        for flags in (set() if segment.tries else self.http_flags, set()):  # again without what only new ffmpegs have
            first, last = last, self.make(info, sources, segment, flags, made)
            broken = judge(f'ffmpeg: {self.ffmpeg_words()}')[1] == DOUBT  # the last packets may not have come
            if last > TOO_SHORT and abs(last - wanted) <= self.tolerance and not broken:
                return last
        # at the end of a video, what two tries make alike is all that there is of its sound
        alike = abs(first - last) < 0.05 and last < wanted and not self.ffmpeg_words()
        if alike and last > TOO_SHORT and segment.end >= end - SHORT:
            return last
        if alike and last <= TOO_SHORT and segment.start > end - SHORT:
            raise Refused(f'the video ends at {segment.start + last:.3f} s, {segment.start} s are wanted')
        raise Refused(f'ffmpeg made {last:.3f} s instead of {wanted:.3f} s. {self.ffmpeg_words()}')

    def pad(self, made: Path, segment: Segment, duration: float) -> float:
        """Lengthen a short clip with silence, for only now its length is known; returns its new length (s)."""
        wanted = LENGTH if segment.split in WEAK + STRONG else segment.end - segment.start
        if duration >= wanted - (1e-5 if self.settings.ext in ('wav', 'flac') else self.tolerance):
            return round(duration, 3)
        padded = made.with_stem('padded')
        silence = ['-af', f'apad=whole_dur={wanted}', *ENCODE[self.settings.ext], '-t', str(wanted)]
        self.run_ffmpeg('-i', made, *silence, padded)
        if abs((longer := measure(padded)) - wanted) > self.tolerance:
            raise Refused(f'ffmpeg made {longer:.3f} s instead of {wanted:.3f} s. {self.ffmpeg_words()}')
        os.replace(padded, made)
        return round(longer, 3)

    def fetch(self, task: Task) -> Result:
        """One clip, from the question to where it waits for its place in wavs/."""
        settings, segment, path = self.settings, task.segment, place(self.settings, task.segment)
        there = measure(path) if task.keep and may_adopt(settings, path) else 0.0
        if there and abs(there - (segment.end - segment.start)) <= self.tolerance:  # but in no ledger
            nameless = {'title': '', 'format_id': ''}
            return Result(segment, DONE, DONE, record=describe(settings, path, path, nameless, there), adopted=True)
        with tempfile.TemporaryDirectory(prefix=task.mark, dir=self.scratch) as folder:
            info, cheap_failed = self.asker.ask_twice(task)
            made = Path(folder, path.name)
            duration = self.cut(info, segment, made)
            info['padded'] = self.pad(made, segment, duration) if settings.pad else None
            record = describe(settings, path, made, info, duration)
            ready = str(bring(made, settings.parts)) if task.keep else ''
        return Result(segment, DONE, DONE, record=record, made=ready, cheap_failed=cheap_failed)


def end_at_once(*_: object) -> NoReturn:
    """What SIGTERM does to a worker: no ffmpeg outlives it, where the system has groups of processes."""
    if hasattr(os, 'killpg') and os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def end_with_parent() -> None:
    """No worker outlives the program, however that ends."""
    multiprocessing.parent_process().join()
    end_at_once()


open_once: Callable[[], Worker] | None = None  # what opens the worker of this process, or brings it


def open_worker(*given: Any) -> None:
    """Begin a process, a group of its own with its ffmpegs. The parent alone decides about a Ctrl-C."""
    global open_once
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, 'setpgid'):
        os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, end_at_once)
    if hasattr(signal, 'pthread_sigmask'):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)
    open_once = functools.cache(functools.partial(Worker, *given))
    with contextlib.suppress(OSError):  # a full disk, for one: each task tries again, and says so
        open_once()
    threading.Thread(target=end_with_parent, daemon=True).start()


def fetch(task: Task) -> Result:
    """The worker's edge: whatever happens comes back as a Result."""
    try:
        return open_once().fetch(task)
    except (Refused, OSError) as error:  # OSError: of the disk
        no = error if isinstance(error, Refused) else Refused(str(error))
    except Exception as error:  # the one place for what nobody expected; its traceback is shown and kept
        words = hide(f'{type(error).__name__}: {error}\n{traceback.format_exc()}')
        return Result(task.segment, FAILED, 'unexpected', words)
    return Result(task.segment, no.verdict, no.reason, no.words)


# -------------------------------------------------------------------------------------------------------------- pace
HOUR = 3600  # s
RATE_LIMIT = 1800  # s of the first pause where YouTube speaks of a rate limit, which lasts up to an hour
SHARE = 0.9  # of what came through before a refusal: what a route keeps to after it
LEAST = 100  # rows an hour that it keeps to at least; fewer than these in an hour tell nothing of its limit
BACK = 0.3  # days in which it makes half the way back to the rate that was refused
DAILY = 0.005  # by how much it grows in a day on top of that, in two days by four times as much
SUSPECT = ('unavailable', 'drm', 'no address')  # reasons that may be an answer to everything that a route asks
FEW = 4  # of such answers or failures in a row, without a clip between them, until a known clip is asked
ELSEWHERE = 3  # routes that have to say "not in your country", if there are as many
CLOSINGS = 4  # refusals that a row was the first to meet; with the next one it may be the row
MISSES = 5  # in a row until the cheap request is given up
Settle = Callable[[Result], None]


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
        self.per_hour, self.starts = per_hour, deque[float](maxlen=per_hour or 0)  # per_hour: the user's own ceiling
        self.begin(learned)

    def begin(self, learned: Learned | None) -> None:
        """Forget this run's results: YouTube counts us as somebody else, of whom this is known."""
        self.learned, self.next = learned, 0.0
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

    def refund(self, at: float, now: float) -> None:
        """A row that started then has asked for nothing."""
        if at in self.starts:
            self.starts.remove(at)
        self.next -= HOUR / self.learned.rate(now) if self.learned else 0

    def passed(self, at: float, until: float) -> None:
        """Count a row that came through, and forget those of more than an hour before."""
        self.passes.append(at)
        while self.passes and self.passes[0] < until - HOUR:
            self.passes.popleft()

    def learn(self, refused: float, now: float) -> None:
        """Keep below what came through in the hour before the refusal, or in less if YouTube answers sooner. A
        refusal of one row alone teaches nothing: it may have been the row."""
        rows, self.refused = self.refused, set()
        if len(rows) < 2 or not self.passes or self.passes[0] > refused:
            return
        count, first = len(self.passes), self.passes[0]
        granted = count * HOUR / min(HOUR, max(1, now - first))
        hourly = now - first >= HOUR and count >= LEAST  # else too fast was the burst, not the hour
        too_many = granted if hourly else count * HOUR / max(1, refused - first)
        budget = max(SHARE * granted, LEAST, self.learned.rate(now) / 2 if self.learned else 0)
        self.learned = Learned(budget, max(budget, too_many), now)


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
        waited_for = any(not other.why and name not in row.nowhere for name, other in self.routes.items())
        if row.nowhere and nth > 2 and not waited_for:  # nobody waits for a route that may be dead
            self.settle(Result(row, FAILED, 'country', 'not shown in that of one route, and others do not answer'))
            return None
        return row

    def wait(self, row: Segment, due: float) -> None:
        bisect.insort(self.waiting, (due, row), key=lambda waiting: waiting[0])

    def give_back(self, results: Iterable[Result], now: float) -> None:
        """It was the weather: nothing is held against these rows."""
        for result in results:
            self.wait(result.segment._replace(unproven=result.verdict in (GONE, LATER)), now)

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

    def adopt(self, result: Result) -> None:
        """Settle a row whose clip lay in its place, which tells nothing of YouTube; it may serve as a known one."""
        if len(self.known) < self.known.maxlen:
            self.known.appendleft(result.segment)
        self.settle(result)


def visitor(settings: Settings, route: str) -> str:
    """Whom YouTube counts on a route: an account has another limit than a guest."""
    return f'{route} with cookies' if as_account(settings, settings.cookies) else route


class Route:
    """A way to YouTube: open or closed, and what its results say, of their rows or of the weather."""

    def __init__(self, name: str, settings: Settings, backlog: Backlog, known: Mapping[str, Learned]) -> None:
        self.name, self.settings, self.backlog = name, settings, backlog
        self.label = '' if name == 'direct' else f'{name}: '
        self.visitor = visitor(settings, name)
        self.budget = Budget(settings.per_hour, known.get(self.visitor))
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
        for _ in range(before if task.probe else min(before, 1)):
            self.backlog.conclude(self.held.pop(0)[1], self.name, now)

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
        self.settings, self.former = settings, dict(learned or {})
        self.routes, self.left = dict[str, Route](), dict[str, Route]()  # left: of nodes that may come back
        self.backlog = Backlog(settings, self.routes, rows, settle)
        self.backlog.known.extend(known)
        self.stop = ''  # why the run ends early
        for name in routes:
            self.add(name)

    def add(self, name: str, now: float = 0) -> None:
        route = self.left.pop(name, None) or Route(name, self.settings, self.backlog, self.former)
        self.routes[name], route.since = route, now

    def remove(self, name: str, now: float) -> None:
        route = self.left[name] = self.routes.pop(name)
        route.flying = 0
        self.backlog.give_back(route.release(), now)

    @property
    def over(self) -> bool:
        routes = self.routes.values()
        left = self.backlog.ahead or self.backlog.waiting or any(route.held for route in routes)
        return bool(self.stop or not left) and not any(route.flying for route in routes)

    @property
    def learned(self) -> dict[str, Learned]:
        """What the routes have learned, for the ledger."""
        routes = [*self.routes.values(), *self.left.values()]
        return {route.visitor: route.budget.learned for route in routes if route.budget.learned}

    def give_up(self, now: float) -> None:
        """End the run where every route is closed, and has been for long or will tell nothing."""
        last, backlog = max(self.routes.values(), key=lambda route: route.since), self.backlog
        untold = backlog.waiting and not (backlog.ahead or backlog.known or any(r.flying for r in self.routes.values()))
        if 0 < self.settings.give_up_after <= (silence := now - last.since):
            self.stop = f'nothing came through for {silence:.0f} s ({last.why.words})'
        elif untold and all(row.unproven for _, row in backlog.waiting):
            self.stop = f'no row comes ({last.why.words}), and there is no clip to compare with; try another time'

    def next(self, now: float, free: Collection[str] | None = None) -> Task | None:
        """The task to start now, if any, on the least busy of the routes that have a free place."""
        if not self.stop and self.routes and all(route.why for route in self.routes.values()):
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
        full = len(held) >= (FEW if backlog.known else places if doubtful else max(10, 2 * self.settings.num_processes))
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
        elif result.adopted:
            route.budget.refund(task.at, now)
            self.backlog.adopt(result)
        elif result.verdict == STOP:
            self.stop = f'{result.words}; mend that'
        else:
            self.backlog.see(task, result)
            route.see(task, result, now)

    def knock(self, now: float) -> None:
        """Have every closed route tried at once: the cookies have changed."""
        self.former |= self.learned
        for route in [*self.routes.values(), *self.left.values()]:
            route.until, route.visitor = min(route.until, now), visitor(self.settings, route.name)
            route.budget.begin(self.former.get(route.visitor))


def weather(pace: Pace, now: float) -> str:
    """What holds the run up, and until when; empty if nothing does."""
    routes = pace.routes.values()
    if closed := sorted((route for route in routes if route.why), key=lambda route: route.until):
        count = f'{len(closed)} of {len(routes)} routes: ' if len(routes) > 1 else ''
        until = 'trying' if closed[0].flying else f'next try {clock(closed[0].until, now)}'
        return f'{count}{closed[0].why.reason}, {until}'
    due, rate = min((route.due() for route in routes), default=0), sum(route.budget.rate(now) for route in routes)
    return f'{rate:.0f} rows an hour, the next at {clock(due, now)}' if due > now and rate < math.inf else ''


# ------------------------------------------------------------------------------------------------------------ routes
PUBLISHED = [*FOLDERS.values(), *OTHERS.values(), 'https://cdn-lfs.hf.co', 'https://cas-bridge.xethub.hf.co']
YOUTUBE = r'(?:[\w-]+\.)*(?:youtube|googlevideo)\.com|(?:youtubei|jnn-pa)\.googleapis\.com|www\.google\.com'
SSH = ['ssh', '-N', '-oBatchMode=yes', '-oExitOnForwardFailure=yes', '-oServerAliveInterval=15', '-oControlMaster=no']
KEEPER = """  # ends its ssh when its own input ends, as that does with the program, however it ends
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
os.close(2)  # so that what ssh says ends with ssh
sys.stdin.read()
if process.poll() == 0:  # it had the forward made by a connection of the user's own (ControlPath), which stays
    subprocess.run([*sys.argv[1:], '-O', 'cancel'], stderr=subprocess.DEVNULL)
process.kill()
"""


async def reach(at: Address, trust: ssl.SSLContext, host: str, port: int, tls: ssl.SSLContext | None = None) -> Any:
    """A stream to a host by a proxy; OSError says why there is none."""
    from python_socks import ProxyError, ProxyType
    from python_socks.async_.asyncio.v2 import Proxy

    kind = {'https': 'HTTP', 'socks5h': 'SOCKS5'}.get(at.scheme, at.scheme.upper())
    login = [urllib.parse.unquote(part or '') for part in (at.username, at.password)]
    far = at.scheme not in ('socks4', 'socks5')  # whether the other end looks names up, as curl has it
    proxy = Proxy(ProxyType[kind], at.hostname, at.port, *login, far, trust if at.scheme == 'https' else None)
    try:
        return await proxy.connect(host, port, tls)
    except (ProxyError, EOFError, ValueError) as error:  # ValueError: a login that cannot be sent
        raise OSError('it hung up' if isinstance(error, EOFError) else str(error)) from None


class Tunnel:
    """A machine that the user's ssh can log in to: ssh makes a SOCKS proxy of it, on a port of loopback."""

    def __init__(self, at: Address, trust: ssl.SSLContext) -> None:
        self.at, self.trust, self.words = at, trust, ''  # words: what ssh said last
        self.opening = self.keeper = None  # the task that starts ssh, and the process

    async def reach(self, host: str, port: int) -> Any:
        """A stream to a host by the ssh that runs, else by a new one; OSError in ssh's words."""
        opening = self.opening = self.opening or asyncio.create_task(self.open())
        try:
            return await reach(await asyncio.shield(opening), self.trust, host, port)
        except OSError as error:
            self.opening = None if self.opening is opening else self.opening
            raise OSError(self.words or str(error)) from None

    async def open(self) -> Address:
        """Start ssh, and wait until YouTube answers through it."""
        self.words = ''
        if self.keeper:
            self.keeper.stdin.close()
        with socket.create_server(('127.0.0.1', 0)) as free:
            at = urllib.parse.urlsplit(f'socks5h://127.0.0.1:{free.getsockname()[1]}')
        pipe, command = subprocess.PIPE, [sys.executable, '-c', KEEPER, *SSH, '-D', at.netloc, self.at.geturl()]
        self.keeper = await asyncio.create_subprocess_exec(*command, stdin=pipe, stderr=pipe)
        hearing = asyncio.create_task(self.hear(self.keeper.stderr))
        while True:
            try:
                await (await reach(at, self.trust, 'www.youtube.com', 443, self.trust)).close()
                return at
            except OSError as error:
                await asyncio.sleep(1 if hearing.done() else 0.1)  # logins that fail many times a second are noticed
                if hearing.done() or error.errno != errno.ECONNREFUSED:  # else it does not listen yet
                    raise

    async def hear(self, said: asyncio.StreamReader) -> None:
        async for line in said:
            self.words = line.decode(errors='replace').strip() or self.words


async def pour(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Pass on what comes, until either side has ended."""
    with contextlib.suppress(OSError):
        while data := await source.read(1 << 16):
            sink.write(data)
            await sink.drain()
    sink.close()


class Door:
    """An http proxy on loopback, in a thread: it leads whoever knows the token of a route by that, to YouTube alone."""

    def __init__(self, patience: float, lists: Collection[str]) -> None:
        self.ways = dict[str, tuple[str, Callable]]()  # what requests log in with -> a route's name, and its way
        hosts = {re.escape(urllib.parse.urlsplit(url).netloc) for url in [*PUBLISHED, *lists]}
        self.known = re.compile(rf'CONNECT ({"|".join([YOUTUBE, *sorted(hosts)])}):(\d+) ')
        self.patience, self.trust = patience, ssl.create_default_context()  # patience: s
        self.socket = socket.create_server(('127.0.0.1', 0), backlog=256)
        threading.Thread(target=asyncio.run, args=[self.serve()], daemon=True).start()

    def add(self, name: str, at: Address) -> str:
        """The address at which the door leads by this proxy."""
        way = Tunnel(at, self.trust).reach if at.scheme == 'ssh' else functools.partial(reach, at, self.trust)
        login = f'door:{secrets.token_urlsafe()}'
        self.ways[f'Basic {base64.b64encode(login.encode()).decode()}'] = name, way
        return f'http://{login}@127.0.0.1:{self.socket.getsockname()[1]}'

    async def serve(self) -> None:
        await (await asyncio.start_server(self.lead, sock=self.socket)).serve_forever()

    async def lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        with contextlib.suppress(OSError, EOFError, asyncio.LimitOverrunError):  # whoever asked has hung up, or babbles
            status, stream = await self.open((await reader.readuntil(b'\r\n\r\n')).decode('latin-1'))
            writer.write(f'HTTP/1.1 {status}\r\n\r\n'.encode('ascii', 'replace'))
            if stream:
                await asyncio.gather(pour(reader, stream.writer), pour(stream.reader, writer))
        writer.close()

    async def open(self, head: str) -> tuple[str, Any]:
        """The answer to a request for a connection, and the stream to where it leads, if it does."""
        login = re.search(r'(?im)^proxy-authorization: *(\S+ \S+)', head)
        name, way = self.ways.get(login[1] if login else '', ('', None))
        asked = self.known.match(head)
        if not way:
            return '407 who is it?\r\nProxy-Authenticate: Basic realm="download.py"', None
        if not asked:
            return f'403 no way by {name}: {head.split(" HTTP/")[0]} leads neither to YouTube nor to a list', None
        try:
            return '200 OK', await asyncio.wait_for(way(asked[1], int(asked[2])), self.patience)
        except (OSError, asyncio.TimeoutError) as error:
            return f'502 no way by {name}: {" ".join(str(error).split()) or "no answer in time"}', None


# -------------------------------------------------------------------------------------------------------------- pool
ENDINGS = [getattr(signal, name) for name in ('SIGINT', 'SIGTERM', 'SIGHUP') if hasattr(signal, name)]
PRELOAD = [f'yt_dlp.{name}' for name in ('extractor.extractors', 'extractor.youtube', 'downloader.external')]
PRELOAD += ['filelock', 'mutagen.mp4', 'pebble', 'tqdm']
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

        needed, (soft, hard) = 40 + 16 * processes, resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY:
            return
        most = max(soft, 10_240) if hard == resource.RLIM_INFINITY else hard  # macOS takes no more
        require(
            needed <= most, f'num_processes = {processes}: needs {needed} open files, {most} are allowed (ulimit -n)'
        )
        wanted = max(soft, needed, min(most, 10_240))  # a door has two for each connection
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Pool:
    """The processes of this machine: one that dies, or takes too long for a clip, fails its own task only."""

    def __init__(self, settings: Settings) -> None:
        settings.num_processes = settings.num_processes or processes_here()
        check_files(settings.num_processes)
        self.settings, self.broken = settings, 0  # broken: pools in a row without a result
        http_flags = find_ffmpeg(settings)
        settings.parts.mkdir(parents=True, exist_ok=True)
        self.scratch = tempfile.TemporaryDirectory('', settings.run_prefix, settings.temps, ignore_cleanup_errors=True)
        self.given, self.context = (settings, Path(self.scratch.name), http_flags), start_method()
        self.asked = set[concurrent.futures.Future]()  # that are not done
        self.pool: pebble.ProcessPool | None = None

    def start(self) -> None:
        """Begin with fresh processes."""
        self.broken += 1
        if self.broken > 20:
            raise OSError('worker processes end as soon as they begin')
        self.end()
        self.pool = pebble.ProcessPool(self.settings.num_processes, FRESH, open_worker, self.given, self.context)

    def free(self, pace: Pace, now: float) -> Collection[str]:
        """The routes by which a task may start now."""
        self.mend()
        flying = sum(route.flying for route in pace.routes.values())
        return self.settings.routes if flying < self.settings.num_processes else ()

    def submit(self, task: Task) -> concurrent.futures.Future:
        asked = task._replace(proxy=self.settings.routes[task.route], cookies=self.settings.cookies)
        if not (self.pool and self.pool.active):  # one died with the lock of all, or while none had a task
            self.start()
        future = self.pool.schedule(fetch, args=[asked], timeout=self.settings.clip_timeout)
        self.asked.add(future)
        future.add_done_callback(self.asked.discard)
        return future

    def mend(self) -> None:
        """Give back the tasks that a broken pool had not taken up, of which pebble says nothing."""
        if self.asked and not self.pool.active:
            self.end()

    def result(self, task: Task, future: concurrent.futures.Future) -> Result | None:
        """What became of a task; None if nobody has tried it."""
        try:
            result, self.broken = future.result(), 0
            return result
        except (concurrent.futures.CancelledError, BrokenProcessPool):
            return None
        except concurrent.futures.TimeoutError:
            verdict, reason, words = DOUBT, 'timeout', f'not done within {self.settings.clip_timeout} s'
        except pebble.ProcessExpired as died:
            say(f'a worker died (exit code {died.exitcode}) over {task.segment.ytid}; another one goes on')
            verdict, reason, words = FAILED, DIED, f'its process ended (exit code {died.exitcode})'
        for remains in Path(self.scratch.name).glob(f'*/{task.mark}*'):  # what it had downloaded by then
            shutil.rmtree(remains, ignore_errors=True)
        return Result(task.segment, verdict, reason, words)

    def end(self) -> None:
        """End all processes and their ffmpegs at once, also those that sleep."""
        if not self.pool:
            return
        self.pool.stop()
        joining = threading.Thread(target=self.pool.join, daemon=True)
        joining.start()
        while joining.is_alive() or multiprocessing.active_children():  # until it starts no others
            for process in multiprocessing.active_children():
                with contextlib.suppress(AttributeError, ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.kill()
            joining.join(0.05)
        for future in list(self.asked):
            future.cancel()

    def close(self) -> None:
        with no_interrupts():
            self.end()
            self.scratch.cleanup()
            shutil.rmtree(self.settings.parts, ignore_errors=True)


# ----------------------------------------------------------------------------------------------------------- cluster
def connect() -> Any:
    """Ray, connected to the cluster of RAY_ADDRESS, to the one that runs here, or to a new one of this machine."""
    import ray
    import ray.util.scheduling_strategies

    address = os.environ.get('RAY_ADDRESS', '')
    host, _, port = address.rpartition(':')
    handlers = {ending: signal.getsignal(ending) for ending in ENDINGS}
    say('connecting to Ray ...')
    try:
        if host and port.isdecimal():  # else Ray tries for minutes, deaf to Ctrl-C
            socket.create_connection((host, int(port)), 5).close()
        ray.init(logging_level='CRITICAL', log_to_driver=False)
        say(f'Ray: {len(ray.nodes())} nodes, coordinated by {ray.get_runtime_context().gcs_address}')
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        raise UsageError(f'ray: {" ".join(str(error).split())[:300]} (RAY_ADDRESS={address})') from None
    finally:
        for ending, handler in handlers.items():
            signal.signal(ending, handler)
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
        self.pool.start()
        self.one_thread, self.closed = threading.Lock(), False  # one_thread: it alone begins with fresh processes

    def places(self) -> int:
        return self.pool.settings.num_processes

    def fetch(self, segment: tuple, cookies: str, *task: Any) -> tuple[tuple, bytes]:
        """The fields of a result but for its segment, and the bytes of its clip."""
        self.pool.settings.cookies = cookies
        asked = self.script.Task(self.script.Segment(*segment), *task)
        result = None
        while not result:  # else its pool broke before anybody tried it
            with self.one_thread:
                if self.closed:
                    raise OSError('closed')
                future = self.pool.submit(asked)
            while not future.done():
                concurrent.futures.wait([future], 1)
                with self.one_thread:
                    self.pool.mend()
            result = self.pool.result(asked, future)
        clip = Path(result.made).read_bytes() if result.made else b''
        if result.made:
            os.unlink(result.made)
        return result[1:], clip

    def close(self) -> None:
        with self.one_thread:
            self.closed = True
            self.pool.close()
        self.home.cleanup()


class Node:
    """What the driver knows of a node: its actor, if it has one, and how it fares."""

    actor: Any = None
    ready: concurrent.futures.Future | None = None  # of the number of its places for clips
    places, failures = 0, 0  # failures: times in a row that it was lost
    broken = ''  # why its actor cannot go on

    def __init__(self, id: str, name: str) -> None:
        self.id, self.name = id, name
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

    def free(self, pace: Pace, now: float) -> Collection[str]:
        """The routes by which a task may start now, of the nodes that are ready and can go on. Looks for nodes, too."""
        if now - self.looked >= self.LOOK:
            self.looked = now
            self.find_nodes(now)
        for node in self.nodes.values():
            if node.ready and node.ready.done():
                self.welcome(node, pace, now)
            if node.actor and node.broken:
                self.lose(node, pace, now)
        return [way for way, (node, _) in self.ways.items() if node.actor and len(node.tasks) < node.places]

    def find_nodes(self, now: float) -> None:
        found = {one['NodeID']: one for one in self.ray.nodes() if one['Alive'] and one['Resources'].get('CPU')}
        for id in found.keys() - self.nodes.keys():  # by its address, which the next run meets again
            name = f'node {found[id]["NodeManagerAddress"]}'
            taken = [node.name for node in self.nodes.values() if node.id in found]
            self.nodes[id] = Node(id, f'{name} ({id[:4]})' if name in taken else name)
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

    def welcome(self, node: Node, pace: Pace, now: float) -> None:
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
            pace.add(way, now)

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


# --------------------------------------------------------------------------------------------------------------- run
def short_of_space(settings: Settings) -> str:
    """Whether the disk has no room for what is in flight and for the metadata; '' if it has."""
    clips = 2 * settings.num_processes * clip_size(settings)  # these and what comes until the next look
    needed = {settings.temps: clips, settings.wavs: clips, settings.root: 3 * settings.ledger.stat().st_size}
    for folder, size in needed.items():
        if (free := shutil.disk_usage(folder).free) < size:
            return f'only {free / 1e6:.1f} MB are free in {folder}; make room'
    return ''


def fetch_all(job: Job, bar: Progress, pace: Pace, pool: Pool | Cluster) -> None:
    """Have rows fetched as the pace allows and the pool has places, until all are settled or the pace says stop."""
    flying, looked, end, ledger = dict[concurrent.futures.Future, Task](), 0.0, math.inf, job.reader.ledger
    came = queue.Queue[concurrent.futures.Future]()  # Python 3.10's SimpleQueue may wait for ever where it should not
    while (flying or not pace.over) and (now := time.monotonic()) < end:
        if look := now - looked > 0.2:  # s
            looked, pace.stop = now, pace.stop or short_of_space(job.settings)
            if renew_cookies(job.settings):
                pace.knock(time.time())
        if pace.stop:
            end = min(end, now + 3)  # s for what is almost done
        while (free := pool.free(pace, time.time())) and (task := pace.next(time.time(), free)):
            with no_interrupts():  # one could leave a lock of the pool locked; its processes inherit this
                future = pool.submit(task)
                flying[future] = task
                future.add_done_callback(came.put)
        patience = 0.1  # s
        with contextlib.suppress(queue.Empty):
            while future := came.get(timeout=patience):
                task, patience = flying.pop(future), 0
                pace.see(task, pool.result(task, future), time.time())
        if not job.settings.limit:  # else what it takes is read already
            job.reader.step()
        if look:
            bar.show(weather(pace, time.time()), len(pace.backlog.waiting))
            ledger.commit()
            ledger.remember(pace.learned)
    ledger.remember(pace.learned)


# -------------------------------------------------------------------------------------------------------------- show
PLAIN = '{desc}{n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]'  # in tqdm's language
OPEN = (FAILED, '')  # statuses of rows that are not settled; '': not tried


def count(counts: Counter[tuple], *statuses: str) -> int:
    """How many rows have one of these statuses."""
    return sum(n for (*_, status, _), n in counts.items() if status in statuses)


def headline(settings: Settings) -> str:
    """What is counted: lists, choice, make and root."""
    told = [f'{name} {", ".join(getattr(settings, name))}' for name in ('labels', 'exclude') if getattr(settings, name)]
    told += [f'{name} {getattr(settings, name)}' for name in ('per_label', 'limit') if getattr(settings, name)]
    told += [f'shard {settings.shard}'] if settings.shard != '0/1' else []
    return f'{"; ".join([", ".join(settings.splits), *told])}: {make_of(settings)} in {settings.root}'


def command(settings: Settings, *more: str) -> str:
    """The line to paste that does something else with the same job: what is not as the script's own settings say."""
    words, here = ['python', 'download.py'], Path(__file__).resolve().parent
    for name in (*CHOOSING, *MAKING):
        flag, value = f'--{name.replace("_", "-")}', getattr(settings, name)
        if value != globals()[name]:
            value = json.dumps(value) if isinstance(value, dict) else value
            words += [flag.replace('--', '--no-') if value is False else flag]
            words += [] if isinstance(value, bool) else map(str, value if isinstance(value, list) else [value])
    words += [] if settings.root == here else ['--root', str(settings.root)]
    return shlex.join([*words, *more])


def tabulate(rows: list[list], left: tuple[int, ...] = (0,)) -> str:
    """A table of at most 80 columns, its head first; columns that are all zero or empty are left out."""
    shown = [n for n in range(len(rows[0])) if n < 2 or any(row[n] for row in rows[1:])]
    widths = {n: max(len(str(row[n])) for row in rows) for n in shown}
    lines = ('  '.join(f'{row[n]!s:{"<" if n in left else ">"}{widths[n]}}' for n in shown) for row in rows)
    return '\n'.join(line[:80].rstrip() for line in lines)


class Progress:
    """A bar over all rows of the run on a terminal; elsewhere a plain line now and then, if there is news."""

    EVERY = 10  # s between plain lines

    def __init__(self, job: Job) -> None:
        self.job, self.seen, self.examples = job, Counter[str](), dict[str, str]()  # rows by status; words by reason
        self.counts = Counter[tuple[str, str]]()  # of all rows, by status and reason, once the lists are read
        self.terminal, self.news, self.spoke = sys.stderr.isatty(), (), time.monotonic()
        plain = {'bar_format': PLAIN, 'file': io.StringIO(), 'mininterval': math.inf}
        self.bar = tqdm(unit='clip', miniters=0, **({'dynamic_ncols': True} if self.terminal else plain))

    def count(self) -> None:
        """Ask the ledger how many rows there are, and say how many of them are to do."""
        settings, self.counts = self.job.settings, self.job.counts()
        self.seen |= {status: count(self.counts, status) for status in (DONE, GONE)}
        self.bar.n = self.bar.initial = self.bar.last_print_n = self.seen.total()
        self.bar.total, left = self.counts.total(), count(self.counts, *OPEN)
        found = f'{self.bar.total} rows, {self.bar.total - left} settled ({self.seen[DONE]} done), {left} to do'
        say(f'{headline(settings)}\n{found}')
        need, free = left * clip_size(settings) / 1e9, shutil.disk_usage(settings.wavs).free / 1e9
        if free < need:
            say(f'about {need:.1f} GB are needed and {free:.1f} GB are free: the run stops before the disk is full')

    def show(self, weather: str = '', waiting: int = 0) -> None:
        """What came, how many rows wait for another try, and what is going on."""
        if not self.counts and (self.job.settings.limit or not self.job.reader.lines):
            self.count()
        self.bar.set_description(weather, refresh=False)
        told = {status: self.seen[status] for status in (DONE, GONE, FAILED)}
        self.bar.set_postfix(told, refresh=False, **({'waiting': waiting} if waiting else {}))
        self.bar.update(self.seen.total() - self.bar.n)
        news, now = (weather, self.bar.n), time.monotonic()
        if not self.terminal and news != self.news and now - self.spoke > self.EVERY:
            self.news, self.spoke = news, now
            say(str(self.bar))


def outcome(counts: Counter[tuple[str, str]], examples: dict[str, str], skipped: int) -> str:
    """A table of what became of the rows, by status and reason, with one example of each new reason."""
    rows = []
    for status in (DONE, GONE, FAILED):
        rows.append((status, count(counts, status), ''))
        found = [(reason, n) for (of, reason), n in counts.most_common() if of == status != DONE]
        rows += [(f'  {reason}', n, examples.get(reason, '')) for reason, n in found]
    rows += [('not tried', count(counts, ''), ''), ('rows skipped', skipped, '')]
    return '\n'.join(f'{name:<16}{n:>9}  {example}'[:80].rstrip() for name, n, example in rows)


def show_form(job: Job, split: str) -> str:
    """How a list is read, and its first row as it was understood."""
    path, form = job.reader.lists[split]
    columns = 'c.ytid, c.start_ms / 1000.0, c.end_ms / 1000.0, t.labels, a.extra'
    tables = 'asks a JOIN clip c ON c.id = a.clip JOIN tagset t ON t.id = a.tagset'
    query = f'SELECT {columns} FROM {tables} WHERE a.list = ? ORDER BY a.position LIMIT 1'
    found = job.db.execute(query, (job.reader.ids[split],)).fetchone()
    row = '{} from {} to {} s, {} {}'.format(*found[:4], found[4] or '') if found else 'none'
    return f'{path.name}, read as {form}\n  first row: {row.strip()}'


def plan(job: Job) -> str:
    """What a run would do, by list."""
    rows = [['', 'rows', 'settled', 'done', 'to do', 'shared with the lists above']]
    own, shared = job.counts('l.id'), job.counts('l.id', of=job.shared)
    for split, id in job.reader.ids.items():
        found, others = (Counter({key: n for key, n in all.items() if key[0] == id}) for all in (own, shared))
        left, total, again = count(found, *OPEN), found.total(), others.total()
        rows.append([split, total + again, total - left, count(found, DONE), left, again])
    size, skipped = count(own, *OPEN) * clip_size(job.settings) / 1e6, count_skipped(job)
    end = f'to do: about {size:,.0f} MB of {job.settings.ext}; {skipped} lines are no rows'
    read = '\n'.join(map(functools.partial(show_form, job), job.reader.ids))
    return f'{headline(job.settings)}\n{tabulate(rows)}\n{end}\n\n{read}'


def coverage(job: Job) -> list[list]:
    """A head, then of each class how many rows there are and what became of them; the largest lost share first."""
    classes, labels = defaultdict[str, Counter[str]](Counter), job.reader.labels
    for (tagset, status, reason), n in job.counts('a.tagset', of='').items():
        for name in job.classes[tagset]:
            if not job.choice or job.choice.takes([name]):
                classes[name][{DONE: 'there', GONE: f'gone: {reason}'}.get(status, 'left')] += n
    reasons, table = sorted(set().union(*classes.values()) - {'there', 'left'}), []
    for name, found in classes.items():
        gone = [found[reason] for reason in reasons]
        known = [name if name in labels else '', labels.get(name, name), found.total(), found['there'], found['left']]
        table.append([*known, round(sum(gone) / found.total(), 4), *gone])
    head = ['mid', 'label', 'rows', 'there', 'left', 'lost', *reasons]
    return [head, *sorted(table, key=lambda row: (-row[5], -row[2], row[1]))]


def show_coverage(table: list[list]) -> str:
    reasons = [name.removeprefix('gone: ') for name in table[0][6:]]
    rows = [['class', 'rows', 'there', 'left', 'lost', 'gone']]
    for _, label, total, there, left, lost, *gone in table[1:]:
        why = ', '.join(f'{reason} {n}' for n, reason in sorted(zip(gone, reasons, strict=True), reverse=True) if n)
        share = f'{lost:.1%}' if any(row[5] for row in table[1:]) else ''
        rows.append([textwrap.shorten(label, 30, placeholder='…'), total, there, left, share, why])
    return tabulate(rows, left=(0, 5))


# -------------------------------------------------------------------------------------------------------------- page
MEANINGS = {  # reason -> what it means, and what mends it; '': of all others, by which YouTube refuses an address
    '': 'YouTube refuses. Waiting, cookies.txt or other addresses (proxies) help.',
    'age': 'Only for adults who are logged in. Put cookies.txt there, then run with --again age.',
    'copyright': 'Blocked by a holder of rights, perhaps only in your country: --again copyright from another one.',
    'country': 'Not shown in your country. Use a proxy in another one, and --again country.',
    'damaged': 'YouTube has only a part of it. The next run tries again.',
    'drm': 'Encrypted. Nothing mends that.',
    'dubbed': 'Only a translated track has an address just now. The next run tries again.',
    'live': 'The broadcast has not begun or not ended. The next run tries again.',
    'media': 'The connection broke, or ffmpeg could not read what came. The next run tries again.',
    'media 403': 'YouTube gave an address and then refused it. The next run tries again.',
    'members': 'Only for members or buyers. With the cookies.txt of one: --again members.',
    'network': 'YouTube could not be reached. The next run tries again.',
    'no address': 'YouTube plays it for some players and has nothing for us just now. The next run tries again.',
    'no format': 'Nothing of what is wanted is offered. A newer yt-dlp may find it.',
    'no sound': 'The video is silent. Nothing mends that.',
    'other': 'yt-dlp said what this script does not know; the ledger has its words. A newer yt-dlp may help.',
    'private': 'The owner has hidden the video. Nothing mends that.',
    'restricted': 'Your network or account hides such videos (restricted mode). Use another one.',
    'removed': 'The owner or YouTube has deleted the video. Nothing mends that.',
    'terminated': 'The channel was closed. Nothing mends that.',
    'route': 'A proxy or an ssh did not let it through; its words say why. The next run tries again.',
    'timeout': 'It took longer than clip_timeout. The next run tries again.',
    'too large': 'It can only be downloaded whole, and is too large for that.',
    'too short': 'The video ends before these seconds. Nothing mends that.',
    'unavailable': 'YouTube does not say why; mostly it is deleted. --again unavailable asks once more.',
    'unexpected': 'A fault of this script; the ledger has its words. Please report it.',
    DIED: 'The process that fetched it crashed. The next run tries again.',
    'wrong length': 'The clip came out too short or too long. The next run tries again.',
}
PAGE = r"""<!doctype html>
<html lang="en"><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'nonce-{nonce}';
  style-src 'nonce-{nonce}'; media-src 'self' file:; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>AudioSet: what came of it</title>
<style nonce="{nonce}">
:root { color-scheme: light dark; --soft: light-dark(#525d6b, #a5b0bf); --box: light-dark(#f3f5f8, #1b212a) }
body { margin: 0 auto; max-width: 72rem; padding: 1rem; font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h2 { margin: 2.5rem 0 .75rem } h3 { font-size: 1rem; margin: 0 } p { margin: .5rem 0 } .soft, dt { color: var(--soft) }
button, input, select, label { font: inherit; max-width: 100%; box-sizing: border-box }
tr button { background: none; border: 0; padding: 0 .2rem; text-align: left } tbody button { color: LinkText }
dl, ul { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); padding: 0 }
ul { list-style: none; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)) }
dl div, li { background: var(--box); border-radius: .6rem; padding: .6rem .8rem } dd { margin: 0; font-size: 1.2rem }
audio, video { width: 100% } video { aspect-ratio: 16 / 9 }
.wide { overflow: auto; max-height: 40rem } thead { position: sticky; top: 0 } body, thead { background: Canvas }
table { border-collapse: collapse; width: 100%; overflow-wrap: normal } tbody th { font-weight: 400 }
th, td { text-align: right; padding: .25rem .5rem; vertical-align: top }
tr { border-bottom: 1px solid light-dark(#d3d9e1, #38414e) } th:last-child { width: 24% }
th:first-child, th:last-child, .words { text-align: left; min-width: 9rem } th.words { min-width: 15rem }
.bar, .chart { display: flex; background: var(--box) } .bar { height: .8rem; margin: .35rem 0 } .chart { height: 9rem }
.chart div { flex: 1; display: flex; flex-direction: column-reverse }
.bar span, .chart span { background: var(--kind) } .key { color: var(--kind) } figure { margin: 1.5rem 0 }
.row { display: flex; flex-wrap: wrap; gap: .25rem 1rem; align-items: center } .ends { justify-content: space-between }
.done, .there, .c2 { --kind: light-dark(#1d7d50, #3fbf83) } .gone, .lost, .c0 { --kind: light-dark(#c2410c, #f08a5d) }
.failed, .c3 { --kind: light-dark(#a37100, #e0b23c) } .left, .c5 { --kind: light-dark(#808a99, #76818f) }
.c1 { --kind: light-dark(#1f66d1, #6aa5ff) } .c4 { --kind: light-dark(#8a3ffc, #b794ff) }
</style>
<main><h1>AudioSet: what came of it</h1><p id="about" class="soft"></p>
<h2>How far it is</h2><dl id="facts"></dl>
<div class="wide" role="region" aria-label="By list" tabindex="0"><table><thead><tr>
  <th>list<th>rows<th>done<th>gone<th>left<th>failed<th>share</thead><tbody id="lists"></tbody></table></div>
<figure id="pace"></figure>
<h2>What is lost, and why</h2>
<div class="wide" role="region" aria-label="Losses by reason" tabindex="0"><table><thead><tr><th>reason
  <th>gone<th>failed<th class="words">meaning and remedy<th>share</thead><tbody id="losses"></tbody></table></div>
<figure id="nights"></figure>
<h2>Classes</h2>
<p class="row"><label>Filter <input id="filter" type="search"></label>
<label id="branches"><input id="tree" type="checkbox"> in branches</label> <span id="found" role="status"></span>
<div class="wide" role="region" aria-label="Classes" tabindex="0"><table><thead id="heads"><tr>
  <th><button value="label">class</button><th><button value="rows">rows</button><th><button value="there">there</button>
  <th><button value="left">left</button><th><button value="share">lost</button><th>share</thead>
  <tbody id="classes"></tbody></table></div>
<h2>Listen</h2>
<p class="row"><label>Class <select id="class"></select></label> <label>Clips <input id="many" type="number" min="1"
  max="30" value="6"></label> <button id="again">Again</button> <span id="chosen" role="status"></span>
<ul id="clips"></ul></main>
<script type="application/json" id="data">{data}</script><script nonce="{nonce}">
const $ = id => document.getElementById(id), data = JSON.parse($('data').textContent)
const {begin, last, step, bins, seconds, bytes} = data.time
const sum = numbers => numbers.reduce((all, n) => all + n, 0)
const number = n => Math.round(n).toLocaleString('en'), share = (n, of) => (100 * n / (of || 1)).toFixed(1) + ' %'
const date = at => new Date(1000 * at).toLocaleString('en-GB', {dateStyle: 'medium', timeStyle: 'short'})
function make(name, properties, ...inside) {  // append() makes text of a string: a stranger's words are never markup
  const made = Object.assign(document.createElement(name), properties)
  made.append(...inside)
  return made
}
const piece = (className, part, title = '') => make('span', {className, title, style: `flex: 0 0 ${100 * part}%`})
function bar(parts, whole = sum(Object.values(parts)) || 1) {  // parts: how many by kind
  const told = Object.entries(parts).map(([kind, n]) => `${kind} ${number(n)}`).join(', ')
  const pieces = Object.entries(parts).map(([kind, n]) => piece(kind, n / whole))
  return make('div', {className: 'bar', role: 'img', ariaLabel: told}, ...pieces)
}
function row(name, ...cells) {
  const whole = cells.map(cell => make('td', {className: cell.length > 20 ? 'words' : ''}, cell))
  return make('tr', {}, make('th', {scope: 'row'}, name), ...whole)
}
function chart(id, title, series) {  // of each: kind, name, results by bin
  const hourly = n => number(3600 * n / step) + ' an hour', height = x => sum(series.map(([, , of]) => of[x]))
  const places = [...Array(bins).keys()]
  const highest = Math.max(1, ...places.map(height)), label = `${title}, at most ${hourly(highest)}`
  const columns = places.map(x => make('div', {}, ...series.map(([kind, name, of]) =>
    piece(kind, of[x] / highest, `${date(begin + x * step)}: ${name} ${hourly(of[x])}`))))
  const made = make('div', {className: 'chart', role: 'img', ariaLabel: label}, ...columns)
  const keys = series.map(([kind, name]) => make('span', {}, make('span', {className: 'key ' + kind}, '■ '), name))
  const ends = make('div', {className: 'row ends soft'}, make('span', {}, date(begin)), make('span', {}, date(last)))
  $(id).append(make('figcaption', {}, label), make('div', {className: 'row soft'}, ...keys), made, ends)
}
// ---- how far it is, and what is lost
const counts = data.counts.map(([list, bin, status, reason, n]) => ({list, bin, status: status || 'left', reason, n}))
const total = test => sum(counts.filter(test).map(one => one.n))
const fates = test => ['done', 'gone', 'failed', 'left'].map(status => total(one => one.status === status && test(one)))
function binned(test) {
  const sums = Array(bins).fill(0)
  for (const {bin, n} of counts.filter(test)) sums[bin] += n
  return sums
}
const [done, gone, failed, untried] = fates(() => true), rows = done + gone + failed + untried, left = failed + untried
const day = Math.min(bins, Math.ceil(86400 / step))
const pace = 3600 * total(one => one.bin !== null && one.bin >= bins - day) / (day * step)
const facts = {rows: number(rows), done: `${number(done)} (${share(done, rows)})`,
  gone: `${number(gone)} (${share(gone, rows)})`, 'left to try': `${number(left)} (${number(failed)} failed)`,
  sound: (seconds / 3600).toFixed(2) + ' hours', 'on the disk': (bytes / 1e9).toFixed(3) + ' GB'}
if (begin) Object.assign(facts, {began: date(begin), 'last result': date(last),
  'pace of its last day': number(pace) + ' an hour', 'at that pace, over': date(data.at + 3600 * left / pace)})
for (const [name, told] of Object.entries(facts))
  $('facts').append(make('div', {}, make('dt', {}, name), make('dd', {}, told)))
for (const [list, id] of [['all', null], ...Object.entries(data.lists)]) {
  const [done, gone, failed, left] = fates(one => id === null || one.list === id)
  const told = [done + gone + failed + left, done, gone, failed + left, failed].map(number)
  $('lists').append(row(list, ...told, bar({done, gone, failed, left})))
}
const results = ['done', 'gone', 'failed'].map(kind => [kind, kind, binned(one => one.status === kind)])
if (begin) chart('pace', 'Results over time', results)
const size = Object.fromEntries(Object.keys(data.meanings).map(of => [of, total(one => one.reason === of)]))
const reasons = Object.keys(size).sort((a, b) => size[b] - size[a]), rest = reasons.slice(5)
for (const reason of reasons) {
  const [, gone, failed] = fates(one => one.reason === reason), picture = bar({gone, failed}, size[reasons[0]])
  $('losses').append(row(reason, number(gone), number(failed), data.meanings[reason], picture))
}
const losses = reasons.slice(0, 5).map((of, at) => ['c' + at, of, binned(one => one.reason === of)])
if (rest.length) losses.push(['c5', 'others', binned(one => rest.includes(one.reason))])
if (losses.length) chart('nights', 'Losses over time', losses)
// ---- classes: all, sorted by a column, or in the branches of the ontology
const classes = data.classes.map(([, label, rows, there, left], at) => ({label, rows, there, left, at,
  lost: rows - there - left, share: (rows - there - left) / (rows || 1)}))
const lower = new Set(Object.values(data.branches).flat()), roots = classes.filter(one => !lower.has(one.at))
const order = {by: 'share', up: false}, unfolded = new Set(), MOST = 1000  // rows that are shown at a time
function classRow(one, depth, id, open) {  // open: undefined where nothing is below
  const {at, label, rows, there, lost, left} = one, name = make('div', {style: `padding-left: ${depth}rem`})
  const unfold = () => { unfolded.delete(id) || unfolded.add(id); listClasses() }
  const choose = () => { $('class').value = at; $('class').focus(); listen() }
  const fold = {id, ariaExpanded: open, ariaLabel: 'below ' + label, onclick: unfold}
  if (open !== undefined) name.append(make('button', fold, open ? '▾' : '▸'))
  name.append(at in data.drawn ? make('button', {title: 'listen', onclick: choose}, label) : label)
  return rows ? row(name, ...[rows, there, left].map(number), share(lost, rows), bar({there, lost, left})) : row(name)
}
function listClasses() {
  const text = $('filter').value.trim().toLowerCase(), tree = $('tree').checked, focus = document.activeElement.id
  const below = one => tree ? (data.branches[one.at] || []).map(at => classes[at]) : [], rows = []
  const fits = one => one.label.toLowerCase().includes(text), within = one => fits(one) || below(one).some(within)
  const compare = (a, b) => order.by === 'label' ? a.label.localeCompare(b.label) : a[order.by] - b[order.by]
  const walk = (some, depth, path) => {
    some.sort((a, b) => (order.up ? 1 : -1) * compare(a, b) || b.rows - a.rows)
    for (const one of some.filter(within)) {
      const id = `${path}/${one.at}`, inner = below(one), open = text ? inner.some(within) : unfolded.has(id)
      if (rows.length < MOST) rows.push(classRow(one, depth, id, inner.length ? open : undefined))
      if (open) walk(inner, depth + 1, id)
    }
  }
  walk(tree ? roots : classes.filter(one => one.rows), 0, '')
  $('classes').replaceChildren(...rows)
  $('found').textContent = number(classes.filter(one => one.rows && fits(one)).length) + ' classes'
  for (const button of heads)
    button.parentNode.ariaSort = button.value !== order.by ? 'none' : order.up ? 'ascending' : 'descending'
  if (focus) $(focus)?.focus()  // the button of a branch is another one now
}
const heads = document.querySelectorAll('#heads button')
for (const button of heads) button.onclick = () => {
  Object.assign(order, {up: order.by === button.value && !order.up, by: button.value})
  listClasses()
}
// ---- listening
function card([path, title, ytid, start, end, labels, captions]) {
  const address = new URL(data.way + path.split('/').map(encodeURIComponent).join('/'), document.baseURI).href
  const player = make(data.player, {controls: true, preload: 'none', src: address, ariaLabel: title || ytid})
  const note = make('p', {role: 'alert'}), href = `https://www.youtube.com/watch?v=${ytid}&t=${Math.floor(start)}s`
  const link = make('a', {href, rel: 'noreferrer', target: '_blank'}, `${ytid} on YouTube, ${start} to ${end} s`)
  player.onerror = () => { note.textContent = 'No clip that plays here: ' + decodeURI(address) }
  player.onplay = () => document.querySelectorAll(data.player).forEach(other => other === player || other.pause())
  const told = [labels.join(', '), ...captions].map(words => make('p', {}, words))
  return make('li', {}, make('h3', {}, title || ytid), ...told, make('p', {}, link), player, note)
}
function listen() {
  const queue = data.drawn[$('class').value] || [], ids = queue.splice(0, Math.max(1, Math.floor($('many').value)))
  queue.push(...ids)
  $('clips').replaceChildren(...ids.map(id => card(data.clips[id])))
  $('chosen').textContent = `${ids.length} of ${queue.length} that were drawn at random`
}
const heard = classes.filter(one => one.at in data.drawn).sort((a, b) => a.label.localeCompare(b.label))
$('class').append(make('option', {value: -1}, 'all'), ...heard.map(one => make('option', {value: one.at}, one.label)))
$('about').textContent = `${data.about}, ${date(data.at)}`
$('branches').hidden = !lower.size
for (const id of ['filter', 'tree']) $(id).oninput = listClasses
for (const id of ['class', 'many']) $(id).onchange = listen
$('again').onclick = listen
for (const show of [listClasses, listen]) show()
</script>
</html>
"""


def way_to(root: Path, page: Path) -> str:
    """The address of the root as a page sees it: relative, so that both may move together."""
    try:
        return urllib.parse.quote(Path(os.path.relpath(root, page.resolve().parent)).as_posix()) + '/'
    except ValueError:  # another drive of Windows
        return root.as_uri() + '/'


def count_over_time(job: Job) -> tuple[dict[str, Any], list[list]]:
    """When results came, in how many bins of how many s, and their sums; counts by list, bin, status and reason."""
    columns = 'ifnull(min(c.settled), 0), ifnull(max(c.settled), 0), total(c.duration), total(c.bytes)'
    query = f'SELECT {columns} FROM {job.TABLES} WHERE true{job.where}{job.first}'
    begin, last, seconds, size = job.db.execute(query).fetchone()
    bins = max(12, min(336, int((last - begin) / 900)))  # of a quarter of an hour; in 85 days, of 6 hours
    step = (last - begin + 1) / bins
    found = job.counts('l.id', f'CAST((c.settled - {begin!r}) / {step!r} AS INT)')
    counts = [[*key, n] for key, n in found.items()]
    return {'begin': begin, 'last': last, 'step': step, 'bins': bins, 'seconds': seconds, 'bytes': size}, counts


def grow_branches(settings: Settings, classes: list[list]) -> dict[int, list[int]]:
    """What is below each class in the ontology; adds to the classes those that are only above others."""
    places, nodes = {tag: at for at, (tag, *_) in enumerate(classes) if tag}, dict[str, tuple[str, list[str]]]()
    try:
        nodes = published(settings, 'ontology.json') if places else {}
    except (UsageError, OSError) as error:  # no network, or csvs/ is read-only
        say(f'{error}; the page has no branches')
    while above := [tag for tag in nodes.keys() - places.keys() if not places.keys().isdisjoint(nodes[tag][1])]:
        for tag in above:
            places[tag] = len(classes)
            classes.append([tag, nodes[tag][0], 0, 0, 0])
    return {at: [places[of] for of in nodes[tag][1] if of in places] for tag, at in places.items() if tag in nodes}


def draw_clips(job: Job, places: dict[str, int]) -> dict[int, list[int]]:
    """Some clips that are there, at random: of each class, by its place, and (-1) of all."""
    most = min(30, 20_000 // max(1, len(places)))  # they make a page large
    belongs = {tagset: [-1, *map(places.get, places.keys() & set(names))] for tagset, names in job.classes.items()}
    drawn = {-1: [], **{at: [] for at in places.values()}}
    for part in (50, 1):  # a fiftieth of the clips is enough for most classes
        short = [tagset for tagset, belong in belongs.items() if any(len(drawn[at]) < most for at in belong)]
        where = f"status = 'done' AND random() % {part} = 0 AND tagset IN (SELECT value FROM json_each(?)){job.where}"
        query = f'SELECT a.tagset, c.id FROM {job.TABLES} WHERE {where} ORDER BY random()'
        for tagset, clip in job.db.execute(query, [json.dumps(short)]):
            for at in belongs[tagset]:
                if len(drawn[at]) < most and clip not in drawn[at]:
                    drawn[at].append(clip)
    return {at: clips for at, clips in drawn.items() if clips}


def describe_clips(job: Job, ids: Iterable[int]) -> dict[int, list]:
    """Of each clip path, title, video, start and end (s), labels and captions."""
    columns = 'c.id, c.path, c.title, c.ytid, c.start_ms / 1000.0, c.end_ms / 1000.0, a.tagset, a.extra'
    where, clips = f'c.id IN (SELECT value FROM json_each(?)){job.where} ORDER BY l.rank', dict[int, list]()
    query = f'SELECT {columns} FROM {job.TABLES} WHERE {where}'
    for id, *told, tagset, extra in job.db.execute(query, [json.dumps([*ids])]):
        clip = clips.setdefault(id, [*told, [], []])
        clip[5] = distinct([*clip[5], *(job.reader.labels.get(name, name) for name in job.classes[tagset])])
        clip[6] += [caption[:500] for caption in json.loads(extra or '{}').get('captions', [])]
    return clips


def write_page(page: Path, job: Job, table: list[list]) -> None:
    """One file that needs no other. Nothing in its data can end the element that they stand in, nor know the word by
    which the page's policy tells its own script and style from all others."""
    settings, places = job.settings, {tag or label: at for at, (tag, label, *_) in enumerate(table[1:])}
    classes, drawn, (when, counts) = [row[:5] for row in table[1:]], draw_clips(job, places), count_over_time(job)
    meanings = {reason: MEANINGS.get(reason, MEANINGS['']) for *_, reason, _ in counts if reason}
    told = {'about': headline(settings), 'at': time.time(), 'way': way_to(settings.root, page)}
    told |= {'player': 'video' if settings.ext == 'mp4' else 'audio'}
    told |= {'lists': job.reader.ids, 'time': when, 'counts': counts, 'meanings': meanings}
    told |= {'classes': classes, 'branches': grow_branches(settings, classes), 'drawn': drawn}
    told |= {'clips': describe_clips(job, set[int]().union(*drawn.values()))}
    text = clean(json.dumps(told, ensure_ascii=False, separators=(',', ':')))
    text = re.sub('[<>&\u2028\u2029]', lambda mark: f'\\u{ord(mark[0]):04x}', text)
    before, after = PAGE.replace('{nonce}', secrets.token_urlsafe()).split('{data}')
    with replacing(page) as out:
        out.writelines([before, text, after])


# ------------------------------------------------------------------------------------------------------------- flags
NONE = type(None)
CHOICES = {'ext': [*ENCODE], 'preset': ['', *PRESETS], 'engine': ['multiprocessing', 'ray'], 'channels': [None, 1, 2]}


def from_json(text: str, what: str = 'JSON, such as {"retries": 3}') -> Any:
    try:
        return json.loads('null' if text.lower() == 'none' else text)
    except ValueError:
        thousands = f', such as {text[:-1]}000' if re.fullmatch(r'\d+k', text.lower()) else ''
        raise argparse.ArgumentTypeError(f'{text!r} is no {what}{thousands}') from None


number = functools.partial(from_json, what='number; use digits')
KINDS: dict[str, tuple[tuple[type, ...], dict[str, Any]]] = {  # annotation -> its types, how argparse reads the flag
    'bool': ((bool,), {'action': argparse.BooleanOptionalAction}),
    'list[str]': ((list,), {'nargs': '*', 'metavar': 'NAME'}),
    'dict': ((dict,), {'type': from_json, 'metavar': 'JSON'}),
    'float': ((int, float), {'type': number, 'metavar': 'FLOAT'}),
    'int': ((int,), {'type': number, 'metavar': 'INT'}),
    'int | None': ((int, NONE), {'type': number, 'metavar': 'INT'}),
    'float | None': ((int, float, NONE), {'type': number, 'metavar': 'FLOAT'}),
    'str': ((str,), {'metavar': 'TEXT'}),
    'str | None': ((str, NONE), {'nargs': '?', 'const': '', 'metavar': 'FILE'}),
}


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f'{message} (see --help)')


def read_block(source: str) -> Iterator[tuple[str, str, str, str]]:
    """Heading, name, annotation and comment of each setting above the first constant, however it is laid out."""
    source = re.split(r'^(?=[A-Z][A-Z_, ]*[:=])', source, maxsplit=1, flags=re.MULTILINE)[0]  # all of it takes 0.3 s
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token.string.lstrip('# ') for token in tokens if token.type == tokenize.COMMENT}
    heading, above = '', 0
    for node in ast.parse(source).body:
        target = node.target if isinstance(node, ast.AnnAssign) else getattr(node, 'targets', [None])[0]
        if isinstance(target, ast.Name):
            heading = next((comments[n] for n in range(node.lineno - 1, above, -1) if n in comments), heading)
            fitting = [kind for kind, (types, _) in KINDS.items() if type(globals().get(target.id)) in types]
            annotation = ast.unparse(node.annotation) if isinstance(node, ast.AnnAssign) else ''
            kind = annotation if annotation in KINDS else [*fitting, 'list[str]'][0]  # it may be edited away
            own = [comments[n] for n in range(node.lineno, node.end_lineno + 1) if n in comments]
            yield heading, target.id, kind, ' '.join(own)
        above = node.end_lineno


def make_parser(block: list[tuple[str, str, str, str]]) -> Parser:
    """A flag for each setting; only those that are given are told."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    groups = {heading: parser.add_argument_group(heading) for heading, *_ in block}
    for heading, name, kind, about in block:
        value, flag = globals()[name], f'--{name.replace("_", "-")}'
        shown = '…' if name == 'proxies' and value else repr(value)  # they may hold passwords
        reading = dict(KINDS[kind][1])
        if name in CHOICES:
            reading['metavar'] = '{' + ','.join(str(choice) for choice in CHOICES[name] if choice) + '}'
        told = f'{about} ({shown})'.replace('%', '%%')
        groups[heading].add_argument(flag, default=argparse.SUPPRESS, help=told, **reading)
    return parser


def read_settings(argv: list[str] | None) -> Settings:
    """The globals of the settings block, over them what a preset makes of them, and over that the flags."""
    block = list(read_block(Path(__file__).read_text(encoding='utf-8')))
    edited = {name: globals()[name] for _, name, *_ in block}
    words = sys.argv[1:] if argv is None else argv
    words = [re.sub(r'^--[\w-]+', lambda flag: flag[0].replace('_', '-'), word) for word in words]
    found, unknown = make_parser(block).parse_known_args(words)
    if unknown:
        hint = nearest(unknown[0].partition('=')[0], [f'--{name.replace("_", "-")}' for name in edited], 1)
        raise UsageError(f'{unknown[0]} is no flag{hint} (see --help)')
    flags = vars(found)
    given = edited | flags
    for _, name, kind, _ in block:
        require(type(given[name]) in KINDS[kind][0], f'{name}: use {kind}, not {type(given[name]).__name__}')
    settings = Settings(**edited | PRESETS.get(given['preset'], {}) | flags)
    check_settings(settings)
    return settings


def check_name(name: str, splits: list[str]) -> None:
    """Refuse a template whose clips could overwrite each other or leave wavs/."""
    wrong = f'name = {name!r}'
    sample = {'ytid': 'Y' * 11, 'split': '', 'start': 0.0, 'end': 10.0, 'index': 0, 'part': 0}
    try:
        levels = [level for split in splits for level in name.format(**sample | {'split': split}).split('/')]
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(f'{wrong}: {error}; write fields like {{ytid}}, of {", ".join(sample)}') from None
    for level in levels:
        fits = re.fullmatch(r'(?![\s.])[^<>:"\\|?*\x00-\x1f]+(?<![\s.])', level) and len(os.fsencode(level)) <= 240
        require(fits, f'{wrong}: {level!r} cannot be a name in wavs/')
    require(levels[0] != 'ledgers', f'{wrong}: wavs/ledgers is taken')
    require(name.rpartition('.')[2] not in ENCODE, f'{wrong}: leave the extension away, it comes by itself')
    unique = re.fullmatch(r'[^{}]*\{ytid\}.*|.*\{ytid\}[^{}]*', name.rpartition('/')[2])  # 11 characters in one place
    mend = 'after the last /, the first or the last field must be {ytid}'
    require(unique, f'{wrong}: clips could overwrite each other; {mend}')


def modes_of(s: Settings) -> list[str]:
    """What is wanted instead of a plain run, or before it."""
    return [name for name in ('verify', 'merge', 'pack', 'dry_run', 'report') if getattr(s, name) not in (False, None)]


def check_settings(s: Settings) -> None:
    """Refuse values and combinations that cannot work."""
    for name, choices in CHOICES.items():
        shown = ', '.join(str(choice) for choice in choices if choice)
        require(getattr(s, name) in choices, f'{name} = {getattr(s, name)!r}: use one of {shown}')
    above = 'limit per_label length pack max_height num_processes timeout clip_timeout pause longest_pause per_hour'
    for name in above.split():
        value = getattr(s, name)
        require(value is None or 0 < value < math.inf, f'{name} = {value}: use a number above 0')
    for name in ('retries', 'retry_pause', 'give_up_after'):
        require(0 <= getattr(s, name) < math.inf, f'{name} = {getattr(s, name)}: use a number from 0')
    rates = RATES.get(s.ext, range(1, 384_001))
    require(s.sample_rate is None or s.sample_rate in rates, f'sample_rate = {s.sample_rate}: {s.ext} takes {rates} Hz')
    splits = [name_of(split) for split in map(str, s.splits)]
    named = all(tells in COLUMNS and isinstance(head, str) for tells, head in s.columns.items())
    require(named, f'columns = {s.columns}: name columns for some of {", ".join(COLUMNS)}')
    require(splits and len(splits) == len(set(splits)), f'splits = {s.splits}: name one or more, and each once')
    for split in splits:
        plain = re.fullmatch(r'\w[\w.-]*(?<!\.[ct]sv)', split)
        require(plain, f'splits: {split!r} is no name (leave the extension away, put spaces between names)')
    check_name(s.name, splits)
    share = re.fullmatch(r'0*([0-9]+)/0*([1-9][0-9]*)', s.shard)
    require(share and int(share[1]) < int(share[2]), f'shard = {s.shard!r}: use 0/8 to 7/8, or 0/3 to 2/3')
    s.shard = '/'.join(share.groups())  # so that 03/8 is 3/8
    reasons = {reason for reason, verdict, *_ in VERDICTS if verdict == GONE}
    require(set(s.again) <= reasons, f'again = {s.again}: use reasons of gone rows: {", ".join(sorted(reasons))}')
    require(s.ext != 'mp4' or not s.pad, 'pad is for audio, not for mp4')
    require(s.ext == 'mp4' or not s.exact_frames, f'exact_frames is for mp4, not for {s.ext}')
    require(not s.ffmpeg or shutil.which(s.ffmpeg), f'ffmpeg = {s.ffmpeg!r}: no such program')
    installed = s.engine != 'ray' or importlib.util.find_spec('ray')
    require(installed, "engine = 'ray': Ray is not installed; pip install ray")
    modes = modes_of(s)
    require(len(modes) < 2, f'{" and ".join(modes)}: one at a time')
    require(Path(s.report or '.').absolute().parent.is_dir(), f'report = {s.report!r}: there is no such folder')


# ------------------------------------------------------------------------------------------------------------- start
def read_proxy(proxy: str, port: str = '') -> tuple[str, Address]:
    """What to call a proxy, and its address. `port`: where it names none."""
    schemes, host = r'(?:(https?|socks4|socks5h?|ssh)://)?', proxy.rpartition('@')[2]
    found = re.fullmatch(schemes + r'([^\s/]+@|)([^\s/:@]+|\[[\da-f:.]+\])(?::(\d+))?/?', proxy, re.IGNORECASE)
    use = 'use http, https, socks4, socks5 or socks5h://user:password@host:port, ssh://user@host:port, or direct'
    ssh = found and (found[1] or '').lower() == 'ssh'
    fits = found and (ssh or found[4] or port) and int(found[4] or 1) < 1 << 16
    require(fits, f'proxy {host}: {use} (special characters as %40)')
    require(not ssh or ':' not in found[2], f'proxy {host}: ssh takes no password here; use a key')
    require(not ssh or shutil.which('ssh'), f'proxy {host}: there is no ssh on this machine')
    name = ':'.join(filter(None, [found[3], found[4] or (not ssh and port)]))
    return name, urllib.parse.urlsplit(f'{(found[1] or "http").lower()}://{found[2]}{name}')


def open_routes(settings: Settings) -> None:
    """Add to the settings how YouTube may be reached, name -> proxy: media must come by the address that asked."""
    import certifi

    trusted = os.environ.get('SSL_CERT_FILE') or certifi.where()
    require(os.path.isfile(trusted), f'SSL_CERT_FILE = {trusted}: no such file')
    os.environ['SSL_CERT_FILE'] = trusted  # by yt-dlp, by ffmpeg and by us
    proxies, direct = settings.proxies or ['direct'], None
    around = urllib.request.getproxies() if 'direct' in proxies else {}
    if proxy := around.get('https') or around.get('all') or around.get('http'):
        direct = read_proxy(proxy, '80')[1]
        if direct.scheme == 'http':
            os.environ['https_proxy'] = os.environ['http_proxy'] = direct.geturl()  # the one that ffmpeg reads
            direct = None
    named = [('direct', direct) if proxy == 'direct' else read_proxy(proxy) for proxy in proxies]
    hidden = [name for name, at in named if at and (at.scheme != 'http' or at.username)]
    installed = not hidden or importlib.util.find_spec('python_socks')
    require(installed, f'proxies: for {", ".join(hidden)}, pip install "python-socks[asyncio]"')
    with no_interrupts():
        lists = settings.addresses.values()
        door = Door(0.8 * settings.timeout, lists) if hidden else None  # before yt-dlp and ffmpeg give up, in silence
    settings.routes = {name: door.add(name, at) if name in hidden else at.geturl() if at else '' for name, at in named}
    require(len(settings.routes) == len(proxies), 'proxies: one is named twice')


def open_root(settings: Settings) -> None:
    """Add the paths to the settings, and make the folders where they are missing."""
    settings.addresses = {name_of(split): split for split in settings.splits if '://' in split}
    settings.splits = [name_of(split) for split in settings.splits]
    root = settings.root = Path(settings.root or Path(__file__).parent).expanduser().resolve()
    settings.csvs, settings.wavs, settings.temps = root / 'csvs', root / 'wavs', root / 'temps'
    settings.ledger = ledger_path(settings)
    tag = settings.ledger.stem  # make and shard
    settings.metadata, settings.run_prefix = root / 'audioset_metadata.json', f'run-{zlib.crc32(bytes(root)):x}-{tag}.'
    settings.parts = settings.wavs / f'.parts-{tag}'  # finished clips on their way to wavs/
    path = settings.cookie_path = root / Path(settings.cookie_path).expanduser()
    settings.cookies = settings.cookie_stamp = ''  # stamp: of the file that was read last
    unset = path == root / 'cookies.txt' and not path.exists()
    require(unset or path.is_file(), f'cookie_path = {path}: is no file')
    try:
        for folder in (settings.wavs, settings.temps, settings.ledger.parent):
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        settings.csvs.mkdir(exist_ok=True)  # it may be read-only, as long as all lists are there
    except OSError as error:
        if judge(str(error))[0] == 'system' and not isinstance(error, PermissionError):  # full: that may pass
            raise
        raise UsageError(f'root = {root}: cannot be written ({error.strerror})') from None


def read_cookies(path: Path) -> str:
    """The cookies of a Netscape file as yt-dlp takes them, '' if there are none."""
    lines = path.read_text(encoding='utf-8-sig', errors='replace').splitlines() if path.exists() else []
    rows = [line.split('\t') for line in lines if line.startswith('#HttpOnly_') or line[:1] not in ('', '#')]
    hint = 'not a Netscape cookie file (7 fields with tabs between); export it as README says, or delete it'
    require(all(len(row) == 7 for row in rows), f'{path}: {hint}')
    for row in rows:
        row[4] = row[4] if row[4].isdecimal() else '0'  # the date; yt-dlp prints cookies whose date it cannot read
    return '\n'.join(['# Netscape HTTP Cookie File', *map('\t'.join, rows), '']) if rows else ''


def renew_cookies(settings: Settings) -> bool:
    """Whether there are new cookies: the file was put there, replaced or taken away."""
    path, former = settings.cookie_path, settings.cookies
    if (now := stamp(path)) == settings.cookie_stamp:
        return False
    settings.cookie_stamp = now
    try:
        settings.cookies = read_cookies(path)
    except (UsageError, OSError) as error:
        say(f'{error}; going on with the former cookies')
    if settings.cookies != former:
        say(f'{path.name} has changed: from now on its {"cookies are used" if settings.cookies else "absence counts"}')
    return settings.cookies != former


def clip_size(settings: Settings) -> float:
    """Bytes of a clip of 10 s, about: enough to tell whether they will fit the disk."""
    pcm = 20 * (settings.sample_rate or 44_100) * (settings.channels or 2)
    return {'wav': pcm, 'flac': 0.6 * pcm, 'opus': 12e4, 'mp3': 25e4, 'm4a': 16.5e4, 'mp4': 70e4}[settings.ext]


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
    if lacks := {flag for flag in HTTP_FLAGS if f'-{flag} ' not in told}:
        say(f'{found} is too old for -{" and -".join(sorted(lacks))}: going on without, with more bytes per clip')
    return HTTP_FLAGS.keys() - lacks


# --------------------------------------------------------------------------------------------------------------- job
def name_classes(settings: Settings, forms: Iterable[str], needed: bool) -> tuple[dict[str, str], dict[str, str]]:
    """By MID, the names of strong labels' own classes, if a list of such a form (as the ledger has it) is there, and
    with them all labels."""
    strong = any("'ytid': 'segment_id'" in form and "'onset'" in form for form in forms)
    names = published(settings, 'mid_to_display_name.tsv', needed) if strong else {}
    return names, names | read_labels(settings, needed)[0]


def open_reader(settings: Settings, ledger: Ledger) -> Reader:
    """The lists, AudioSet's first, and the names of their classes, fetched where they are missing."""
    order = sorted(settings.splits, key=rank_of)
    lists = open_lists(settings, order)
    own = [form.heads for split, (_, form) in lists.items() if split not in (*WEAK, *STRONG, *OTHERS)]
    for head in filter(None, settings.columns.values() if own else ()):
        known = set(itertools.chain(*own))
        require(head in known, f'columns: no list has a column {head!r}{nearest(head, known)}')
    names, labels = name_classes(settings, (repr(form) for _, form in lists.values()), needed=True)
    reader = Reader(ledger, lists, labels, names)
    for split in order:  # what a changed one no longer asks for yet would else be missing from the metadata
        soon = settings.labels or settings.exclude or not set(reader.lines) & set(WEAK)
        if split in reader.changed or (soon and split not in WEAK):  # else behind AudioSet's, which name shared clips
            reader.finish(split)
    return reader


def make_choice(settings: Settings, reader: Reader) -> Choice | None:
    """What the settings choose; None: everything."""
    if not (settings.labels or settings.exclude or settings.per_label):
        return None
    names, below = reader.labels, dict[str, list[str]]()
    if (settings.labels or settings.exclude) and settings.descendants:
        nodes = published(settings, 'ontology.json')
        names = {tag: name for tag, (name, _) in nodes.items()} | names
        below = {tag: children for tag, (_, children) in nodes.items()}
    own = reader.ledger.db.execute('SELECT DISTINCT labels FROM tagset')
    known = {name.casefold() for (texts,) in own for name in json.loads(texts)}
    wanted, unwanted = (find_classes(of, names, below, known) for of in (settings.labels, settings.exclude))
    return Choice(wanted, unwanted, settings.per_label, settings.seed)


def open_job(settings: Settings, ledger: Ledger) -> Job:
    """What the user asks for; UsageError if that is nothing."""
    reader = open_reader(settings, ledger)
    job = Job(reader, settings, make_choice(settings, reader))
    while not (usable := job.find('true', most=1)) and reader.lines:
        reader.step(50_000)
    why = 'that labels, exclude and per_label leave; a list of AudioSet that is deleted is fetched anew'
    require(usable or ledger.sharded, f'{", ".join(settings.splits)}: not one usable row {why}')
    return job


def job_of(ledger: Ledger) -> Job:
    """What the settings choose of the lists that the ledger has, whether or not their files are there."""
    settings, known = ledger.settings, dict(ledger.db.execute('SELECT name, id FROM list'))
    _, labels = name_classes(settings, (ledger.get(f'form {split}') for split in settings.splits), needed=False)
    reader = Reader(ledger, {}, labels, {})
    reader.ids = {split: known[split] for split in sorted(settings.splits, key=rank_of) if split in known}
    return Job(reader, settings, make_choice(settings, reader))


# ------------------------------------------------------------------------------------------------------------- modes
def make_manifests(settings: Settings) -> list[Path]:
    """The manifests, by a process of its own."""
    with Ledger(settings, write=False) as ledger:
        return write_manifests(job_of(ledger))


def write_metadata(ledger: Ledger, job: Job) -> tuple[Counter[str], list[Path]]:
    """Records and manifests: where they are many and others may read the ledger, side by side."""
    settings, locking = ledger.settings, ledger.db.execute('PRAGMA locking_mode').fetchone()[0]
    if ledger.path.stat().st_size < SLOW or locking != 'normal':
        return write_records(ledger.db, settings), write_manifests(job)
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as other:
        with no_interrupts():  # it goes on to the end of its files
            manifests = other.submit(make_manifests, settings)
        return write_records(ledger.db, settings), manifests.result()


def merge_metadata(ledger: Ledger, job: Job) -> str:
    """The metadata, the listing and the manifests, anew if anything has changed since they were made; says how many
    records there are."""
    settings, before = ledger.settings, json.loads(ledger.get('written') or '{}')
    chosen = [getattr(settings, name) for name in (*CHOOSING, 'shard')]
    chosen += [str(settings.root), *(stamp(find_list(settings, name)) for name in TABLES)]
    files = before.get('files', {}).items()
    if before.get('chosen') != chosen or any(stamp(Path(path)) != then for path, then in files):
        ledger.commit(at_once=True)
        count, manifests = write_metadata(ledger, job)
        paths = [settings.metadata, settings.wavs / 'metadata.jsonl', *manifests]
        before = {'records': count, 'chosen': chosen, 'files': {str(path): stamp(path) for path in paths}}
        if ledger.write:
            ledger.set('written', json.dumps(before))
    records, others = before['records'], count_others(settings).total()
    by_split = ', '.join(f'{split} {count}' for split, count in records.items())
    rest = f'; {others} clips of other makes' if others else ''
    return f'{sum(records.values())} records in {settings.metadata}{": " if by_split else ""}{by_split}{rest}'


def merge_ledgers(settings: Settings) -> str:
    """The metadata of all ledgers of this make, those of shards among them; beside a run, of what that has so far."""
    settings.shard, settings.ledger = '0/1', ledger_path(settings, '0/1')
    shards = find_siblings(settings)
    wrong = f'{settings.wavs} has no ledger of {make_of(settings)}: nothing to merge'
    require(shards or settings.ledger.exists(), wrong)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(take_turns(settings))
            held.enter_context(claim(settings.ledger))
            ledger = held.enter_context(Ledger(settings))
        except UsageError:
            ledger, shards = held.enter_context(Ledger(settings, write=False)), []
        for path in shards:
            learn(ledger, path)
        return merge_metadata(ledger, job_of(ledger))


def pack_clips(settings: Settings) -> str:
    """What --pack does; says what came of it."""
    settings.ledger, packs = ledger_path(settings, '0/1'), settings.root / 'packs'
    for path in find_ledgers(settings) if any(packs.glob('*.tar')) else ():  # not to write over their shards
        packed = ask_ledger(path, 'SELECT 1 FROM pack LIMIT 1')
        require(not packed, f'packs/ holds shards of {made_by(path)}; move them away, or name another root')
    require(settings.ledger.exists(), f'{settings.wavs} has no ledger of {make_of(settings)}: nothing to pack')
    packs.mkdir(exist_ok=True)
    with claim(settings.ledger), Ledger(settings) as ledger:
        job = job_of(ledger)
        known = ', '.join(name for (name,) in ledger.db.execute('SELECT name FROM list'))
        require(job.reader.ids, f'splits = {settings.splits}: {settings.ledger.name} has {known or "no lists"}')
        try:
            counts = {split: pack_list(job, split, id, settings.pack) for split, id in job.reader.ids.items()}
        except FileNotFoundError as error:
            again = command(settings, '--verify')
            raise UsageError(f'{error.filename}: is not there; {again} fetches it again') from None
    told = ', '.join(f'{split} {count}' for split, count in counts.items())
    return f'{headline(settings)}\n{sum(counts.values())} clips packed in {packs}: {told}'


def look(settings: Settings) -> str:
    """What --dry-run and --report tell; beside a run, of what that has read so far."""
    with contextlib.ExitStack() as held, contextlib.ExitStack() as reading:
        try:
            reading.enter_context(take_turns(settings, 60))
            reading.enter_context(claim(settings.ledger))
            ledger = held.enter_context(Ledger(settings))
        except UsageError as busy:
            ledger = held.enter_context(Ledger(settings, write=False))
            ledger.db.execute('BEGIN')  # so that all numbers are of one moment
            say(f'{busy}'.partition(';')[0] + ': as far as that is')
        for path in find_ledgers(settings) if ledger.write else ():
            learn(ledger, path)
        others = [f'{n} clips of {make} are there, too' for make, n in count_others(settings).items()]
        if settings.dry_run:
            check_make(settings)
        job = open_job(settings, ledger)
        if not settings.limit:
            job.reader.finish()
        reading.close()  # from here on a run may start
        if settings.dry_run:
            return '\n'.join([plan(job), *others])
        table = coverage(job)
        if not settings.report:
            return '\n'.join([headline(settings), show_coverage(table), *others])
        if (file := Path(settings.report)).suffix.lower() in ('.html', '.htm'):
            write_page(file, job, table)
        else:
            with replacing(file) as out:
                csv.writer(out, lineterminator='\n').writerows(table)
    return f'{len(table) - 1} classes in {file}'


# -------------------------------------------------------------------------------------------------------------- main
def settle(job: Job, bar: Progress, result: Result) -> None:
    """Have a clip in its place, and what became of its row in the ledger."""
    if result.reason == 'unexpected' and result.reason not in bar.examples:
        say(f'unexpected, please report it:\n{result.message}')
    if result.made:
        path = job.settings.root / result.record['path']
        for rival in job.reader.ledger.rivals:  # whose clip it replaces
            rival.reopen('(ytid, path) = (?, ?)', result.segment.ytid, result.record['path'])
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(result.made, path)
    job.reader.ledger.settle(result)
    job.given.discard(result.segment.clip)
    bar.seen[result.status] += 1
    bar.examples.setdefault(result.reason, f'{result.segment.ytid}: {result.message}')


def was_interrupted(error: Exception) -> bool:
    """Whether it is SQLite's word for a Ctrl-C that came within a function of ours, that of shards."""
    return 'user-defined function' in str(error)


def fetch_rows(settings: Settings, job: Job, bar: Progress) -> str:
    """Download the rows that are not settled; returns why that ended early, '' if it did not."""
    ledger, alone, settled = job.reader.ledger, settings.engine != 'ray', functools.partial(settle, job, bar)
    routes = settings.routes if alone else ()  # of a cluster, nodes bring theirs
    pace = Pace(settings, routes, job.rows(), settled, job.find('c.status = ?', DONE, most=5), ledger.learned())
    if pace.over:
        return ''
    with contextlib.closing(Pool(settings) if alone else Cluster(settings)) as pool:
        try:
            fetch_all(job, bar, pace, pool)
        except (OSError, sqlite3.Error, BrokenProcessPool) as error:  # no ledger, no place for a clip, no process
            if was_interrupted(error):
                raise KeyboardInterrupt from None
            return f'{str(error) or error.__cause__}; mend that'
    return pace.stop


def settle_rows(job: Job) -> int:
    """Do what is to be done, and say what came of it; returns how many rows are left."""
    settings, bar = job.settings, Progress(job)
    if settings.again:
        reopen_gone(job, settings.again)
    with bar.bar:
        stop = fetch_rows(settings, job, bar)
        bar.show()
    counts = job.counts() if stop or bar.examples else bar.counts
    say(f'\n{headline(settings)}\n{outcome(counts, bar.examples, count_skipped(job))}')
    table = coverage(job)[:11] if bar.examples else []
    if table[1:] and table[1][5]:
        say(f'\n{show_coverage(table)}\n{command(settings, "--report")} shows all classes\n')
    left = count(counts, *OPEN)
    if stop:
        need = f'{left} rows are left, which need about {left * clip_size(settings) / 1e9:.2f} GB'
        print(f'stopped: {stop}; {need}; run the same command again', file=sys.stderr)
    return left


def open_ledger(settings: Settings, held: contextlib.ExitStack) -> Ledger:
    """Our ledger, for us alone; so are all of this make for --verify and without shards, which a shard keeps out."""
    held.enter_context(claim(settings.ledger))
    with contextlib.ExitStack() as lent, contextlib.ExitStack() as turn:
        turn.enter_context(take_turns(settings))
        ours, sharded = find_siblings(settings), settings.shard != '0/1'
        for path in ours if settings.verify or not sharded else [ledger_path(settings, '0/1')]:
            (lent if sharded else held).enter_context(claim(path, patience=2))
        ledger = held.enter_context(Ledger(settings))
        ledger.add_names(settings.name)  # before we look who else has these files
        for path in check_make(settings):
            (lent if sharded else held).enter_context(claim(path, patience=2))  # it must not run beside us
            ledger.rivals += [held.enter_context(Ledger(settings, path=path))] if settings.remake else []
        for path in find_ledgers(settings):
            learn(ledger, path)
        turn.close()
        if settings.verify:
            verify_clips([ledger, *(lent.enter_context(Ledger(settings, path=path)) for path in ours)])
    return ledger


def make_metadata(ledger: Ledger, job: Job | None, most: float = math.inf) -> str:
    """The metadata, if the ledger has at most so many bytes and is not a shard's; says what there is."""
    if ledger.sharded or not job or ledger.path.stat().st_size > most:
        return f'{command(ledger.settings, "--merge")} makes the metadata of all there is'
    return merge_metadata(ledger, job)


def run(settings: Settings) -> int:
    """The job: cookies and ledgers, then all rows, then the metadata. Returns the exit status."""
    check_ydl_opts(settings)
    settings.cookies = read_cookies(settings.cookie_path)
    with contextlib.ExitStack() as held:
        ledger, job = open_ledger(settings, held), None
        for remains in [*settings.temps.glob(f'{settings.run_prefix}*'), settings.parts]:
            shutil.rmtree(remains, ignore_errors=True)  # of a run that was killed
        try:
            left = settle_rows(job := open_job(settings, ledger))
        except KeyboardInterrupt:
            print(f'\ninterrupted; {make_metadata(ledger, job, most=SLOW)}; the same command goes on', file=sys.stderr)
            return 130
        say(make_metadata(ledger, job))
    return 1 if left else 0


INSTEAD = {'merge': merge_ledgers, 'pack': pack_clips, 'dry_run': look, 'report': look}  # of a run


def main(argv: list[str] | None = None) -> int:
    """0: every row is settled; 1: run it again; 2: settings or input are wrong; 130: interrupted."""
    for ending in ENDINGS:  # a scheduler's or a closing terminal's request is a Ctrl-C
        if signal.getsignal(ending) == signal.SIG_DFL:
            signal.signal(ending, signal.default_int_handler)
    for name in ('stdout', 'stderr'):
        stream = getattr(sys, name) or open(os.devnull, 'w')  # noqa: SIM115  # where the shell has closed it
        stream.reconfigure(errors='replace')  # no title ends the run where it cannot be shown
        setattr(sys, name, stream)
    try:
        settings = read_settings(argv)
        open_root(settings)
        open_routes(settings)
        if instead := [INSTEAD[mode] for mode in modes_of(settings) if mode in INSTEAD]:
            say(instead[0](settings))
            return 0
        return run(settings)
    except UsageError as error:
        print(f'download.py: {hide(str(error))}', file=sys.stderr)
        return 2
    except (OSError, sqlite3.Error, BrokenProcessPool) as error:  # the ledger or the metadata cannot be written
        if was_interrupted(error):
            return 130
        broken = 'malformed' in str(error) or 'readonly' in str(error)
        where = f'{settings.ledger}: ' if isinstance(error, sqlite3.Error) else ''
        remedy = remedy_for(error) if broken else 'mend that, then run the same command again'
        print(f'download.py: {where}{error}; {remedy}', file=sys.stderr)
        return 2 if broken else 1


if __name__ == '__main__':
    try:
        status = main()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done
    except KeyboardInterrupt:
        status = 130
    raise SystemExit(status)
