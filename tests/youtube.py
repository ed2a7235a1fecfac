"""A stand-in for YouTube: a TLS-terminating proxy on loopback that yt-dlp and ffmpeg take for the real thing.

    python tests/youtube.py                 # then do what it says, in another terminal
    python tests/youtube.py --rows 500 --faults 0.2 --weather bot
    python tests/youtube.py --shape 'hls dubbed' --share 0.5

It answers for www.youtube.com (`/watch`, `/youtubei/v1/player`), googlevideo.com (Range requests, HLS, DASH) and the
bucket with the CSVs, misbehaves per video as a test asks, and counts what it was asked. Nothing is sent beyond
loopback.
"""

import argparse
import asyncio
import base64
import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import http.server
import itertools
import json
import math
import os
import pathlib
import random
import shlex
import socket
import ssl
import string
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from typing import Any

import filelock
import imageio_ffmpeg
import trustme

# -------------------------------------------------------------------------------------------------------------- media

CACHE = pathlib.Path(tempfile.gettempdir()) / 'audioset-stand-in'
# itag -> pixels; what is really served
SIZES = dict.fromkeys(('134', '18', '230', '93'), (640, 360)) | {'136': (1280, 720)}
SOUNDLESS = {'134', '136', '230'}
FPS = 10
LOW, HIGH = (400, 40, 25), (2000, 60)  # Hz: second s sounds at 400 + 40 (s mod 25) and at 2000 + 60 (s div 25)
TONES = '+'.join(
    f'0.2*sin(2*PI*({f})*T)' for f in ('400+S+40*mod(floor(T),25)', '2000+S+60*floor(T/25)')
)  # S: of a dub
# s; AAC begins with silence, kept without edit lists
PRIMING = dict.fromkeys(('140', '233', '234', '93'), 1024 / 44100)
FRAGMENTED = ('-movflags', '+dash+global_sidx+skip_trailer', '-f', 'mp4')  # one index, at the front, as YouTube's files
SEGMENTED = ('-f', 'hls', '-hls_time', '5', '-hls_playlist_type', 'vod')
H264 = ('-c:v', 'libx264', '-preset', 'ultrafast', '-g', '50')
ENCODE = {
    '140': ('-c:a', 'aac', '-b:a', '128k', '-frag_duration', '10000000', *FRAGMENTED),
    '251': ('-c:a', 'libopus', '-b:a', '128k', '-cluster_time_limit', '10000', '-cues_to_front', '1', '-f', 'webm'),
    '134': (*H264, '-movflags', '+frag_keyframe', *FRAGMENTED),
    '136': (*H264, '-movflags', '+frag_keyframe', *FRAGMENTED),
    '18': (*H264, '-c:a', 'aac', '-b:a', '96k', '-movflags', '+faststart', '-f', 'mp4'),
    '233': ('-c:a', 'aac', '-b:a', '48k', *SEGMENTED),
    '234': ('-c:a', 'aac', '-b:a', '128k', *SEGMENTED),
    '230': (*H264, *SEGMENTED),
    # the sound begins no earlier
    '93': (*H264, '-c:a', 'aac', '-b:a', '96k', '-bsf:a', 'setts=ts=TS+1024', *SEGMENTED),
}


def frames(seconds: float) -> Iterator[bytes]:
    """Gray frames of 16 x 9 pixels whose columns spell the frame's number in bits, the highest first."""
    for number in range(round(seconds * FPS)):
        yield bytes(255 * (number >> bit & 1) for bit in range(15, -1, -1)) * 9


def encode(itag: str, seconds: float, shift: int, early: float, path: pathlib.Path) -> None:
    sources, stdin = [], None
    if itag in SIZES:
        scale = 'scale={}:{}:flags=neighbor,format=yuv420p'.format(*SIZES[itag])
        sources += ['-f', 'rawvideo', '-pix_fmt', 'gray', '-s', '16x9', '-r', str(FPS), '-i', '-']
        stdin = b''.join(frames(seconds))
    if itag not in SOUNDLESS:
        primed = PRIMING.get(itag, 0)
        tones = TONES.replace('T', f'(t+{primed})').replace('S', str(shift)).replace(',', r'\,')
        sources += ['-f', 'lavfi', '-i', f'aevalsrc={tones}+0.05*(random(0)-0.5):s=44100:d={seconds - primed - early}']
    options = [*(['-vf', scale] if itag in SIZES else []), *([] if itag in SOUNDLESS else ['-ac', '2'])]
    if itag in SEGMENTS:
        path.mkdir()
        options += ['-hls_segment_filename', str(path / '%d.ts')]
        path /= 'index.m3u8'
    quiet = [imageio_ffmpeg.get_ffmpeg_exe(), '-y', '-loglevel', 'error']
    command = [*quiet, *sources, *ENCODE[itag], *options, str(path)]
    subprocess.run(command, input=stdin, check=True)


SEGMENTS = {itag for itag, options in ENCODE.items() if 'hls' in options}


def is_served(itag: str, seconds: float) -> bool:
    """The others are listed, as YouTube lists them, but nobody has made them: 720p of a long video takes long."""
    return itag in ENCODE and (itag != '136' or seconds < 100)


def make(seconds: float) -> None:
    """Have all formats of a healthy video of this length made, before anybody waits for them."""
    prepare(Video(seconds))


def cached(itag: str, seconds: float, shift: int = 0, early: float = 0) -> pathlib.Path:
    """One format of a video that is `seconds` long, its tones shifted by some Hz, its sound ending early by some s.

    Made once per machine and kept in its temp folder: a file, or a folder with a playlist and its segments.
    """
    recipe = repr((itag, seconds, shift, early, TONES, PRIMING.get(itag), ENCODE[itag], FPS)).encode()
    path = CACHE / f'{itag}-{seconds}-{hashlib.sha256(recipe).hexdigest()[:12]}'
    CACHE.mkdir(exist_ok=True)
    with filelock.FileLock(f'{path}.lock'):  # tests that run at once do not all make it
        if not path.exists():
            with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
                encode(itag, seconds, shift, early, pathlib.Path(scratch, 'media'))
                os.replace(pathlib.Path(scratch, 'media'), path)
    return path


@functools.cache
def media(itag: str, seconds: float, shift: int = 0, early: float = 0) -> bytes:
    """The bytes of a format that is one file; see `cached`."""
    return cached(itag, seconds, shift, early).read_bytes()


@functools.cache
def pieces(itag: str, seconds: float, shift: int = 0) -> tuple[str, list[bytes]]:
    """The playlist and the segments of a format for HLS; see `cached`."""
    folder = cached(itag, seconds, shift)
    playlist = (folder / 'index.m3u8').read_text()
    return playlist, [(folder / f'{n}.ts').read_bytes() for n in range(playlist.count('#EXTINF'))]


def index(file: bytes) -> tuple[int, int, list[tuple[int, int]]]:
    """Of a fragmented mp4: its time scale, the bytes before its first fragment, and the bytes and duration of each."""
    box = file.index(b'sidx') - 4
    size, _, version, _, scale = struct.unpack_from('>I4sB3xII', file, box)
    first, count = struct.unpack_from('>8xQ2xH' if version else '>4xI2xH', file, box + 20)
    at = box + 20 + (20 if version else 12)
    parts = [struct.unpack_from('>II', file, at + 12 * n) for n in range(count)]
    return scale, box + size + first, [(length & 0x7FFFFFFF, duration) for length, duration in parts]


# ------------------------------------------------------------------------------------------------------- what it says

SAYS = {  # fault -> playabilityStatus: status, reason, subreason
    'private': ('LOGIN_REQUIRED', 'Private video', "Sign in if you've been granted access to this video"),
    'removed': ('ERROR', 'Video unavailable', 'This video has been removed by the uploader'),
    'terminated': (
        'ERROR',
        'Video unavailable',
        'This video is no longer available because the YouTube account associated with this video has been terminated.',
    ),
    'copyright': (
        'UNPLAYABLE',
        'Video unavailable',
        'This video contains content from Stand-In Records, who has blocked it on copyright grounds',
    ),
    'country': ('UNPLAYABLE', 'Video unavailable', 'The uploader has not made this video available in your country'),
    'age': ('LOGIN_REQUIRED', 'Sign in to confirm your age', 'This video may be inappropriate for some users.'),
    'members': ('UNPLAYABLE', 'Join this channel to get access to members-only content like this video', ''),
    'upcoming': ('LIVE_STREAM_OFFLINE', 'This live event will begin in 3 days.', ''),
    'unavailable': ('ERROR', 'Video unavailable', ''),
    'kids': ('UNPLAYABLE', 'This video is not available', ''),
    'embed': ('UNPLAYABLE', 'Video unavailable', 'Playback on other websites has been disabled by the video owner'),
    'reload': ('UNPLAYABLE', 'The page needs to be reloaded.', ''),
    'bot': ('LOGIN_REQUIRED', 'Sign in to confirm you’re not a bot', 'This helps protect our community. Learn more'),
    'captcha': ('UNPLAYABLE', 'Please verify', ''),
    'rate': ('UNPLAYABLE', 'Video unavailable', "This content isn't available, try again later."),
    'says': ('ERROR', 'see Video.says', ''),
}
FORMATS = [  # itag, mime, codecs, bit/s, height
    *((i, 'video/mp4', 'avc1.4d401e', b, h) for i, b, h in [
        ('137', 4_300_000, 1080), ('136', 1_500_000, 720), ('135', 750_000, 480), ('134', 400_000, 360),
        ('133', 240_000, 240), ('160', 110_000, 144)]),
    *((i, 'video/webm', 'vp9', b, h) for i, b, h in [
        ('248', 2_600_000, 1080), ('247', 1_000_000, 720), ('244', 500_000, 480), ('243', 280_000, 360),
        ('242', 150_000, 240), ('278', 80_000, 144)]),
    *((i, 'video/mp4', 'av01.0.05M.08', b, h) for i, b, h in [
        ('399', 2_100_000, 1080), ('398', 900_000, 720), ('397', 450_000, 480), ('396', 250_000, 360),
        ('395', 130_000, 240)]),
    ('139', 'audio/mp4', 'mp4a.40.5', 50_000, None), ('140', 'audio/mp4', 'mp4a.40.2', 130_000, None),
    ('249', 'audio/webm', 'opus', 55_000, None), ('250', 'audio/webm', 'opus', 72_000, None),
    ('251', 'audio/webm', 'opus', 128_000, None),
]  # fmt: skip
COMBINED = ('18', 'video/mp4', 'avc1.42001E, mp4a.40.2', 500_000, 360)
TRACKS = {  # name -> by how many Hz its tones are shifted, xtags of its address, its name and id with YouTube
    '': (0, '', '', ''),
    'original': (0, 'acont=original:lang=en', 'English original', 'en.4'),
    'dub': (210, 'acont=dubbed-auto:lang=de-DE', 'German (Germany)', 'de-DE.10'),
    'described': (130, 'acont=descriptive:lang=en', 'English descriptive', 'en.2'),
    'drc': (330, 'drc=1', '', ''),
}
SHIFTS = {xtags: shift for shift, xtags, _, _ in TRACKS.values()}
LANGUAGES = [
    'af', 'ar', 'bg', 'cs', 'da', 'de', 'el', 'es', 'fi', 'fr', 'hi', 'hu', 'id', 'it', 'ja', 'ko', 'nl', 'pl', 'pt',
]  # fmt: skip
QUALITY = {144: 'tiny', 240: 'small', 360: 'medium', 480: 'large', 720: 'hd720', 1080: 'hd1080'}


@dataclasses.dataclass
class Video:
    """What the stand-in has under one id and how it misbehaves; without arguments, a healthy video.

    `fault` is a key of SAYS or `WHERE WHAT`: where is page, player, media or csv; what is an HTTP status, drop, stall,
    truncate, short (of a few packets) or garbage; or `manifest WHAT`. It happens `times` times. With `minimal`, only to
    player requests that no watch page preceded.

    `shape` is how YouTube offers the sound, any of these words, where they make sense together:
    hls, dash     no format has an address, a manifest has some: audio and video apart (hls: 233, 234, 230; dash: 140,
                  134)
    hls muxed     the same, and sound and picture are one (93)
    18            the combined format has an address, the others have none
    dubbed        audio formats are there twice, original and dub; with `default` the dub is the viewer's default
    described     the same with a track for the blind
    drc           the same with a track of even loudness
    only          and the original has no address: `dub only`, `described only`, `drc only`
    mute          there are formats with pictures, none with sound
    no context    the embed page, which yt-dlp fetches for fault `age`, is one that its extractor trips over: KeyError
    odd           so is every answer, a refusal as well: AttributeError; `odd page`: the watch page alone
    """

    seconds: float = 630
    title: str = 'A “title”, with\ttab, émoji 🎧 and {braces} %(id)s'
    lacks: str = ''  # a mime type or itag that it does not offer
    fault: str = ''
    times: float = math.inf
    minimal: bool = False
    clients: dict[str, str] = dataclasses.field(default_factory=dict)  # client -> its fault; bare: it has no addresses
    itag: str = ''  # a media fault of this format only
    segment: int | None = None  # a media fault of this segment of an HLS format only, counted from 0
    shape: str = ''  # see above
    says: tuple[str, str, str] | None = None  # a fault in words of one's own: status, reason, subreason, as in SAYS
    sound_ends: float = 0  # s by which the sound of 18 ends before its picture
    damaged: dict[str, float] = dataclasses.field(default_factory=dict)  # itag -> the s that its file holds, and admits
    wait: float = 0  # s that YouTube lets a player wait; media that are asked for earlier are refused with 403

    def __post_init__(self) -> None:
        self.fault = self.fault or ('says' if self.says else '')

    def length(self, itag: str) -> float:
        return self.damaged.get(itag, self.seconds)

    @property
    def tracks(self) -> list[str]:
        """The audio tracks, keys of TRACKS; the one that people want comes last."""
        more = [name for name in ('dub', 'described', 'drc') if name in self.shape]
        return [*more, 'original' if {'dub', 'described'} & {*more} else '']

    @property
    def fetchable(self) -> list[str]:
        """Those of them that can be had at all."""
        return self.tracks[:-1] if 'only' in self.shape else self.tracks

    @property
    def streamed(self) -> list[tuple[str, str]]:
        """The itags and tracks in its manifests."""
        if 'muxed' in self.shape:
            return [('93', '')]
        sound, picture = (('233', '234'), '230') if 'hls' in self.shape else (('140',), '134')
        return [(itag, track) for itag in sound for track in self.fetchable if track != 'drc'] + [(picture, '')]

    def file(self, itag: str, xtags: str = '') -> bytes:
        if not is_served(itag, self.seconds):
            return b''
        return media(itag, self.length(itag), SHIFTS[xtags], self.sound_ends if itag == '18' else 0)

    def offers(self, client: str) -> Iterator[tuple[tuple, str, bool]]:
        """What a client is told: format, audio track, whether it comes with an address."""
        # YouTube gives browsers no addresses any more, only its own streaming protocol
        bare = client == 'WEB' or self.clients.get(client) == 'bare'
        if '18' in self.shape:
            yield COMBINED, '', not bare
        for row in FORMATS:
            if self.lacks in (row[0], row[1]) or ('mute' in self.shape and not row[4]):
                continue
            for track in [''] if row[4] else self.tracks:
                gone = not row[4] and track not in self.fetchable
                yield row, track, not (bare or gone or any(way in self.shape for way in ('hls', 'dash', '18')))


def prepare(video: Video) -> None:
    """Have made what a video serves."""
    for row, track, addressed in video.offers('VISIONOS'):
        if addressed:
            video.file(row[0], TRACKS[track][1])
    for itag, track in video.streamed if 'hls' in video.shape or 'dash' in video.shape else []:
        cached(itag, video.length(itag), TRACKS[track][0])


def format_json(ytid: str, video: Video, row: tuple, track: str, addressed: bool) -> dict:
    itag, mime, codecs, bitrate, height = row
    _, xtags, name, track_id = TRACKS[track]
    seconds = video.length(itag)
    size = len(video.file(itag, xtags)) if addressed else 0
    made = {
        'itag': int(itag),
        'mimeType': f'{mime}; codecs="{codecs}"',
        'bitrate': bitrate,
        'averageBitrate': bitrate,
        'contentLength': str(size or int(bitrate * seconds / 8)),
        'approxDurationMs': str(round(seconds * 1000)),
        'initRange': {'start': '0', 'end': '740'},
        'indexRange': {'start': '741', 'end': '1500'},
        'lastModified': '1594911253000000',
        'projectionType': 'RECTANGULAR',
    }
    if addressed:
        query = {
            'expire': int(time.time()) + 21540,
            'id': ytid,
            'itag': itag,
            'mime': mime,
            'clen': made['contentLength'],
        }
        query |= {'dur': seconds, **({'xtags': xtags} if xtags else {}), **opening(video)}
        query |= {'sparams': 'expire,ei,ip,id,itag,source,requiressl', 'sig': 'AJEij0E' * 16, 'lsig': 'APaTxxM' * 16}
        made['url'] = f'{MEDIA}?{urllib.parse.urlencode(query)}'
    if track == 'drc':
        made['isDrc'] = True
    if name:
        default = track == ('dub' if 'default' in video.shape else 'original')
        made['audioTrack'] = {'displayName': name, 'id': track_id, 'audioIsDefault': default}
    if height:
        made |= {'width': height * 16 // 9, 'height': height, 'fps': FPS, 'qualityLabel': f'{height}p'}
        made |= {'quality': QUALITY[height]}
    if not height or itag == '18':
        quality = 'AUDIO_QUALITY_MEDIUM' if bitrate > 100_000 and not height else 'AUDIO_QUALITY_LOW'
        made |= {'audioQuality': quality, 'audioSampleRate': '44100', 'audioChannels': 2}
    return {'quality': 'tiny', **made}


MEDIA = 'https://rr3---sn-stand-in.googlevideo.com/videoplayback'
MANIFEST = 'https://manifest.googlevideo.com/api/manifest'


def opening(video: Video) -> dict[str, str]:
    """What an address says of the time from which it serves."""
    return {'from': f'{time.time() + video.wait:.3f}'} if video.wait else {}


def spell(query: dict[str, str]) -> str:
    """A query as steps of a path, as YouTube has it in manifests."""
    return '/'.join(f'{key}/{urllib.parse.quote(value, safe="")}' for key, value in query.items())


def read_path(path: str, head: str) -> dict[str, str]:
    steps = [urllib.parse.unquote(step) for step in path.partition(head)[2].split('/')]
    return dict(zip(steps[::2], steps[1::2], strict=False))


def address(query: dict[str, str], itag: str, track: str) -> dict[str, str]:
    xtags = TRACKS[track][1]
    return {**query, 'itag': itag, **({'xtags': xtags} if xtags else {})}


def hls_master(video: Video, query: dict[str, str]) -> str:
    lines = ['#EXTM3U', '#EXT-X-INDEPENDENT-SEGMENTS']
    for itag, track in video.streamed:
        url = f'{MANIFEST}/hls_playlist/{spell(address(query, itag, track))}/playlist/index.m3u8'
        _, _, name, track_id = TRACKS[track]
        if itag in ('233', '234'):
            language = f'LANGUAGE="{track_id.partition(".")[0]}",' if name else ''
            usual = 'NO' if track == 'dub' else 'YES'
            media = f'#EXT-X-MEDIA:URI="{url}",TYPE=AUDIO,GROUP-ID="{itag}",{language}NAME="{name or "Default"}"'
            lines += [f'{media},DEFAULT={usual},AUTOSELECT={usual}']
            continue
        audio = '' if itag == '93' else ',AUDIO="234"'
        stream = (
            f'#EXT-X-STREAM-INF:BANDWIDTH=700000,CODECS="avc1.4D401E,mp4a.40.2",RESOLUTION=640x360,FRAME-RATE={FPS}'
        )
        lines += [f'{stream},VIDEO-RANGE=SDR{audio},CLOSED-CAPTIONS=NONE', url]
    return '\n'.join([*lines, ''])


def hls_playlist(video: Video, query: dict[str, str]) -> str:
    playlist, _ = pieces(query['itag'], video.length(query['itag']), SHIFTS[query.get('xtags', '')])
    lines = playlist.splitlines()
    at = [n for n, line in enumerate(lines) if line and not line.startswith('#')]
    for number, line in enumerate(at):
        lines[line] = f'{MEDIA}/{spell({**query, "sq": str(number)})}/file/seg.ts'
    return '\n'.join([*lines, ''])


def dash_manifest(video: Video, query: dict[str, str]) -> str:
    sets = []
    for itag, track in video.streamed:
        mime, codecs, bitrate, height = next(row[1:] for row in FORMATS if row[0] == itag)
        scale, start, parts = index(file := video.file(itag, TRACKS[track][1]))
        ends = list(itertools.accumulate((size for size, _ in parts), initial=start))
        urls = ''.join(f'<SegmentURL media="range/{a}-{b - 1}"/>' for a, b in itertools.pairwise(ends))
        times = ''.join(f'<S d="{duration}"/>' for _, duration in parts)
        lang = f' lang="{TRACKS[track][3].partition(".")[0]}"' if TRACKS[track][3] else ''
        size = (
            f'width="{height * 16 // 9}" height="{height}" frameRate="{FPS}"' if height else 'audioSamplingRate="44100"'
        )
        base = f'{MEDIA}/{spell(address({**query, "clen": str(len(file))}, itag, track))}/'
        sets.append(
            f'<AdaptationSet mimeType="{mime}" subsegmentAlignment="true"{lang}>'
            f'<Representation id="{itag}" codecs="{codecs}" startWithSAP="1" bandwidth="{bitrate}" {size}>'
            f'<BaseURL>{base}</BaseURL><SegmentList timescale="{scale}">'
            f'<Initialization sourceURL="range/0-{start - 1}"/><SegmentTimeline>{times}</SegmentTimeline>{urls}'
            '</SegmentList></Representation></AdaptationSet>'
        )
    return (
        '<?xml version="1.0" encoding="UTF-8"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'minBufferTime="PT1.5S" profiles="urn:mpeg:dash:profile:isoff-main:2011" '
        f'mediaPresentationDuration="PT{video.seconds}S"><Period>{"".join(sets)}</Period></MPD>'
    )


def is_odd(video: Video, client: str) -> bool:
    return 'odd' in video.shape and ('page' not in video.shape or client == 'WEB')


def placement(wait: float) -> dict:
    """An advertisement before the video that can be skipped after so many s."""
    spot = {'playerVars': 'length_seconds=30', 'skipOffsetMilliseconds': round(wait * 1000)}
    kind = {'adPlacementConfig': {'kind': 'AD_PLACEMENT_KIND_START'}}
    return {'adPlacementRenderer': {'config': kind, 'renderer': {'instreamVideoAdRenderer': spot}}}


def player_json(ytid: str, video: Video, client: str, refused: str) -> dict:
    reason: Any
    refused = refused or video.clients.get(client, '').replace('bare', '')
    status, reason, subreason = (video.says if refused == 'says' else SAYS.get(refused)) or ('OK', '', '')
    screen: dict = {
        'playerErrorMessageRenderer': {'reason': {'simpleText': reason}, 'subreason': {'simpleText': subreason}}
    }
    if refused == 'captcha':
        screen = {'playerCaptchaViewModel': {'html': ''}}
    answer: dict = {
        'responseContext': {'visitorData': 'CgtTdGFuZEluVmlzaXRvcg%3D%3D'},
        'playabilityStatus': {'status': status, 'playableInEmbed': True},
        'videoDetails': {
            'videoId': ytid,
            'title': video.title,
            'lengthSeconds': str(int(video.seconds)),
            'keywords': ['sound', 'stand-in', *([None] if is_odd(video, client) else [])],
            'channelId': 'UC' + 'x' * 22,
            'shortDescription': 'Made up for tests. ' * 40,
            'thumbnail': {
                'thumbnails': [{'url': f'https://i.ytimg.com/vi/{ytid}/{n}.jpg', 'width': n} for n in range(5)]
            },
            'viewCount': '1234567',
            'author': 'Stand-in',
            'isLiveContent': False,
        },
    }
    if refused and is_odd(video, client):
        screen, reason = {'playerErrorMessageRenderer': {'icon': {'iconType': 'ERROR_OUTLINE'}}}, {'simpleText': reason}
    if refused:
        return answer | {'playabilityStatus': {'status': status, 'reason': reason, 'errorScreen': screen}}
    formats = [format_json(ytid, video, *offer) for offer in video.offers(client)]
    data: dict = {'expiresInSeconds': '21540', 'adaptiveFormats': [made for made in formats if made['itag'] != 18]}
    if '18' in video.shape:
        data['formats'] = [made for made in formats if made['itag'] == 18]
    query = spell({'id': ytid, **opening(video)})
    if client != 'WEB' and 'hls' in video.shape:
        data['hlsManifestUrl'] = f'{MANIFEST}/hls_variant/{query}/file/index.m3u8'
    if client != 'WEB' and 'dash' in video.shape:
        data['dashManifestUrl'] = f'{MANIFEST}/dash/{query}/'
    if video.wait:
        answer['adPlacements'] = [placement(video.wait)]
    track = {
        'baseUrl': f'https://www.youtube.com/api/timedtext?v={ytid}&lang=en&kind=asr',
        'languageCode': 'en',
        'kind': 'asr',
    }
    captions: dict = {'captionTracks': [track], 'audioTracks': [{'captionTrackIndices': [0]}]}
    if client == 'WEB':  # only browsers are offered translations
        captions['translationLanguages'] = [{'languageCode': c, 'languageName': {'simpleText': c}} for c in LANGUAGES]
    return answer | {'streamingData': data, 'captions': {'playerCaptionsTracklistRenderer': captions}}


def watch_page(ytid: str, video: Video, refused: str, embedded: bool = False) -> str:
    """The page of a video, as heavy as YouTube's: about a megabyte, half of it data."""
    name = 'WEB_EMBEDDED_PLAYER' if embedded else 'WEB'
    client = {'clientName': name, 'clientVersion': '2.20260708.00.00', 'visitorData': 'CgtTdGFuZEluVmlzaXRvcg%3D%3D'}
    config = {
        'INNERTUBE_CONTEXT': {'client': client},
        'INNERTUBE_CLIENT_VERSION': client['clientVersion'],
        'INNERTUBE_CONTEXT_CLIENT_NAME': 1,
        'VISITOR_DATA': client['visitorData'],
        'PLAYER_JS_URL': '/s/player/5bdfe6d5/player_ias.vflset/en_US/base.js',
        'STS': 20277,
    }
    if embedded and 'no context' in video.shape:
        del config['INNERTUBE_CONTEXT']
    response = json.dumps(player_json(ytid, video, 'WEB', refused))
    related = [{'compactVideoRenderer': {'videoId': f'{n:011}', 'accessibility': [LANGUAGES] * 200}} for n in range(20)]
    data = json.dumps({'contents': {'twoColumnWatchNextResults': {'secondaryResults': related}}})
    kids = 'This video is made for kids' if 'kids' in (video.fault, *video.clients.values()) else ''
    return (
        f'<!DOCTYPE html><html><head><title>{ytid} - YouTube</title>'
        f'<script>ytcfg.set({json.dumps(config)});</script></head>'
        f'<body><script>var ytInitialPlayerResponse = {response};</script>'
        f'<script>var ytInitialData = {data};</script><style>{"a{color:red}" * 40_000}</style>{kids}</body></html>'
    )


# --------------------------------------------------------------------------------------------------------- the server


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection: a plain proxy request for http, CONNECT and then TLS for https."""

    protocol_version = 'HTTP/1.1'
    disable_nagle_algorithm = True
    server: 'Door'
    host = ''

    def setup(self) -> None:
        super().setup()
        self.fed: set[str] = set()  # the videos that had media on this connection

    @property
    def site(self) -> 'YouTube':
        return self.server.site

    def log_message(self, *args: object) -> None:
        pass

    def do_CONNECT(self) -> None:
        self.host = self.path.rpartition(':')[0]
        if self.dead() or self.unknown():
            return
        time.sleep(self.server.latency)  # the TCP handshake with the site behind the proxy
        self.wfile.write(b'HTTP/1.1 200 Connection established\r\n\r\n')
        time.sleep(self.server.latency)  # the TLS handshake
        self.connection = self.server.tls.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile('rb'), self.connection.makefile('wb', 0)
        self.server.count('connections to ' + self.kind())
        self.close_connection = False

    def handle_one_request(self) -> None:
        if hasattr(
            socket, 'TCP_QUICKACK'
        ):  # behind a proxy urllib3 waits for it (Nagle), towards YouTube itself it does not
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        super().handle_one_request()

    def kind(self) -> str:
        if self.host == 'manifest.googlevideo.com':
            return 'manifests'
        return 'media' if self.host.endswith('googlevideo.com') else 'api' if 'youtube' in self.host else 'csv'

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        self.host = url.hostname or self.host
        query = dict(urllib.parse.parse_qsl(url.query))
        if self.dead() or (self.path.startswith('http:') and self.unknown()):
            return
        time.sleep(self.server.latency)
        if '/videoplayback' in url.path:
            self.media(query or read_path(url.path, '/videoplayback/'))
        elif url.path.startswith('/api/manifest/'):
            self.manifest(url.path)
        elif url.path == '/watch' or url.path.startswith('/embed/'):
            self.page(query.get('v') or url.path.rpartition('/')[2], embedded=url.path != '/watch')
        elif url.path.endswith('.js'):
            self.server.count('js')
            self.reply(b'var player={signatureTimestamp:20277};', 'text/javascript')
        elif (name := url.path.rpartition('/')[2]) in self.server.files:
            self.server.count('csv')
            self.reply(self.server.files[name], 'text/csv')
        else:
            self.server.count('unexpected', url.path)
            self.reply(b'', status=404)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        if self.dead():
            return
        time.sleep(self.server.latency)
        if not self.path.startswith('/youtubei/v1/player'):
            self.server.count('next' if '/next' in self.path else 'unexpected', self.path)
            self.reply(b'{}', 'application/json')
            return
        ytid, client = asked['videoId'], asked['context']['client']
        self.server.count('player', ytid)
        self.server.clients[client['clientName']] += 1
        self.server.tokens.add(asked.get('serviceIntegrityDimensions', {}).get('poToken', ''))
        minimal = not self.headers.get('X-Goog-Visitor-Id')
        fault = self.server.fault(ytid, 'player', minimal)
        if self.broken(fault):
            return
        answer = player_json(ytid, self.server.video(ytid), client['clientName'], fault)
        self.reply(json.dumps(answer).encode(), 'application/json')

    def page(self, ytid: str, embedded: bool) -> None:
        self.server.count('page', ytid)
        fault = self.server.fault(ytid, 'page')
        if not self.broken(fault):
            video = self.server.video(ytid)
            refused = fault or ('' if video.minimal else video.fault)
            self.reply(watch_page(ytid, video, refused if refused in SAYS else '', embedded).encode(), 'text/html')

    def manifest(self, path: str) -> None:
        kind = path.split('/')[3]
        query = read_path(path, f'/{kind}/')
        query = {key: query[key] for key in ('id', 'from', 'itag', 'xtags') if key in query}
        self.server.count('manifest', query['id'])
        if not self.broken(self.server.fault(query['id'], 'manifest')):
            write = {'hls_variant': hls_master, 'hls_playlist': hls_playlist, 'dash': dash_manifest}[kind]
            mime = 'application/dash+xml' if kind == 'dash' else 'application/vnd.apple.mpegurl'
            self.reply(write(self.server.video(query['id']), query).encode(), mime)

    def content(self, video: Video, query: dict[str, str]) -> bytes:
        """What an address of media leads to: a file, or a part of one."""
        itag, xtags = query['itag'], query.get('xtags', '')
        if 'sq' in query:
            return pieces(itag, video.length(itag), SHIFTS[xtags])[1][int(query['sq'])]
        first, _, last = query.get('range', '').partition('-')
        return video.file(itag, xtags)[int(first or 0) : int(last) + 1 if last else None]

    def media(self, query: dict[str, str]) -> None:
        ytid, itag = query['id'], query['itag']
        self.server.count('media', ytid)
        if ytid not in self.fed:
            self.server.count('media connections', ytid)
            self.fed.add(ytid)
        video = self.server.video(ytid)
        if time.time() < float(query.get('from', 0)):
            self.server.count('too early', ytid)
            self.broken('media 403')
            return
        first, last = self.headers.get('Range', 'bytes=0-')[6:].split('-')
        begins = first == query.get('sq', '0') == query.get('range', '0').partition('-')[0] == '0'
        # the index arrives, the rest does not
        late = {video.fault, self.server.weather} & {'media truncate', 'media short', 'media stall'}
        spared = (late and begins) or str(video.segment) not in ('None', query.get('sq'))
        fault = '' if spared else self.server.fault(ytid, 'media', itag=itag)
        if self.broken('' if fault in late else fault):
            return
        body = self.content(video, query)
        start, stop = int(first), min(int(last) + 1, len(body)) if last else len(body)
        if start >= len(body):
            self.reply(b'', status=416 if body else 404)
            return
        self.send_response(206 if 'Range' in self.headers else 200)
        kind = 'video/webm' if itag == '251' else 'video/mp2t' if itag in SEGMENTS else 'video/mp4'
        self.send_header('Content-Type', kind)
        self.send_header('Content-Range', f'bytes {start}-{stop - 1}/{len(body)}')
        self.send_header('Accept-Ranges', 'bytes')
        self.send_header('Content-Length', str(stop - start))
        self.end_headers()
        missing = 9000 if stop - start > 50_000 else 0  # of what holds the end of a clip, and a little more
        sent = min(stop, {'': stop, 'media short': stop - missing}.get(fault, start + 10_000))
        self.pour(body[start:sent])
        if fault == 'media stall':
            self.server.closing.wait(600)
        self.close_connection = self.close_connection or sent < stop

    def pour(self, body: bytes) -> None:
        with contextlib.suppress(OSError):  # ffmpeg hangs up when it has enough
            for at in range(0, len(body), 1 << 16):
                self.wfile.write(body[at : at + (1 << 16)])
                self.server.count('bytes', n=len(body[at : at + (1 << 16)]))
            return
        self.close_connection = True

    def dead(self) -> bool:
        if self.server.weather != 'dead':
            return False
        self.server.count('refused')
        return self.broken('drop')

    def unknown(self) -> bool:
        """Refuse who does not log in, where the door asks for it."""
        if not self.server.login or self.headers.get('Proxy-Authorization', '') == self.server.login:
            return False
        self.send_response(407)
        self.send_header('Proxy-Authenticate', 'Basic realm="stand-in"')
        self.send_header('Content-Length', '0')
        self.end_headers()
        self.close_connection = True
        return True

    def broken(self, fault: str) -> bool:
        """Act out a fault that is not YouTube's word on the video; False where there is none."""
        what = fault.rpartition(' ')[2]
        if what == 'drop':
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            self.connection.close()
            self.close_connection = True
        elif what == 'stall':
            self.server.closing.wait(600)
            self.close_connection = True
        elif what == 'garbage':
            self.reply(b'<html>surely not JSON', 'application/json')
        elif what.isdigit():
            self.reply(b'', status=int(what))
        return what in ('drop', 'stall', 'garbage') or what.isdigit()

    def reply(self, body: bytes, kind: str = 'text/plain', status: int = 200) -> None:
        self.server.cookies.update(self.headers.get_all('Cookie') or [])
        self.send_response(status)
        if self.server.set_cookie and kind == 'text/html':
            self.send_header('Set-Cookie', self.server.set_cookie)
        self.send_header('Content-Type', kind)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def behind_tls(context: ssl.SSLContext, port: int) -> int:
    """Another port of loopback that leads to this one through TLS."""
    ready = concurrent.futures.Future[int]()

    async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                sink.write(data)
                await sink.drain()
        sink.close()

    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        source, sink = await asyncio.open_connection('127.0.0.1', port)
        await asyncio.gather(copy(reader, sink), copy(source, writer))

    async def listen() -> None:
        server = await asyncio.start_server(lead, '127.0.0.1', 0, ssl=context)
        ready.set_result(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    threading.Thread(target=asyncio.run, args=[listen()], daemon=True).start()
    return ready.result()


class Door(http.server.ThreadingHTTPServer):
    """One address at which the site is found: a proxy with a weather and a budget of its own."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(
        self, site: 'YouTube', login: str = '', tls: bool = False, listens: socket.socket | None = None
    ) -> None:
        super().__init__(('127.0.0.1', 0), Handler, bind_and_activate=not listens)
        if listens:  # somebody keeps its port for the next site
            self.socket.close()
            self.socket, self.server_address = listens.dup(), listens.getsockname()
        self.site = site
        # a fault of requests that come this way, as in Video, and how likely it is; 'dead': every connection breaks
        self.weather, self.chance = '', 1.0
        self.login = 'Basic ' + base64.b64encode(login.encode()).decode() if login else ''  # user:password to ask for
        self.budget, self.window = 0, 3600.0  # player requests in so many s; the others get 'rate'; 0: no limit
        self.spent: list[float] = []  # when they came
        self.counts: Counter[str] = Counter()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        way = f'https://{login}@127.0.0.1:{behind_tls(site.tls, self.server_address[1])}' if tls else ''
        self.url = way or f'http://{login}@127.0.0.1:{self.server_address[1]}'.replace('//@', '//')

    def __getattr__(self, name: str) -> Any:
        """The rest is the site's."""
        return getattr(self.__dict__['site'], name)

    def count(self, kind: str, ytid: str = '', n: int = 1) -> None:
        self.counts[kind] += n
        self.site.count(kind, ytid, n)

    def fault(self, ytid: str, where: str, minimal: bool = True, itag: str = '') -> str:
        """The fault that meets this request, if any: the weather first, else the video's own."""
        weather = self.weather
        if (
            weather.startswith(where) or (weather in SAYS and where in ('page', 'player'))
        ) and random.random() < self.chance:
            self.count('refused')
            return weather
        if where == 'player' and self.budget:
            now = time.monotonic()
            with self.site.lock:
                self.spent = [then for then in self.spent if now - then < self.window]
                if len(self.spent) >= self.budget:
                    self.counts['refused'] += 1
                    return 'rate'
                self.spent.append(now)
        return self.site.fault(ytid, where, minimal, itag)

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], OSError | ValueError):  # a client that hung up is not news
            super().handle_error(request, client_address)

    def close(self) -> None:
        self.shutdown()
        self.server_close()


@functools.cache
def certify() -> tuple[ssl.SSLContext, tempfile.TemporaryDirectory]:
    """What all sites of this process show, and a folder with the authority that vouches for it, ca.pem."""
    authority, tls, folder = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), tempfile.TemporaryDirectory()
    names = ['youtube.com', '*.youtube.com', '*.googlevideo.com', '*.googleapis.com', '*.githubusercontent.com']
    names += ['huggingface.co', 'www.robots.ox.ac.uk', 'example.com']  # where other lists are published
    authority.issue_cert(*names, 'localhost', '127.0.0.1').configure_cert(tls)
    authority.cert_pem.write_to_path(pathlib.Path(folder.name, 'ca.pem'))
    return tls, folder


class YouTube:
    """The stand-in, serving while the `with` block lasts. `env` is what a subprocess needs to find and trust it."""

    def __init__(self, latency: float = 0.0, listens: socket.socket | None = None):
        self.latency = latency  # s, per round trip
        self.healthy = Video()
        self.videos: dict[str, Video] = {}
        self.files: dict[str, bytes] = {}  # the bucket: file name -> content
        self.counts: Counter[str] = Counter()
        self.asked: Counter[tuple[str, str]] = Counter()  # (kind, id) -> requests; 'media connections': connections
        self.clients: Counter[str] = Counter()
        self.cookies: set[str] = set()  # Cookie headers that came
        self.tokens: set[str] = set()  # proofs of origin that came with player requests
        self.set_cookie = ''  # sent with every page
        self.closing = threading.Event()
        self.lock = threading.Lock()
        self.tls, folder = certify()
        self.ca = pathlib.Path(folder.name, 'ca.pem')
        self.doors: list[Door] = []
        self.main_door = self.door(listens=listens)

    def door(self, **options: Any) -> Door:
        """One more address; see Door."""
        self.doors.append(Door(self, **options))
        return self.doors[-1]

    @property
    def env(self) -> dict[str, str]:
        proxy = self.main_door.url
        return {'https_proxy': proxy, 'http_proxy': proxy, 'no_proxy': '', 'SSL_CERT_FILE': str(self.ca)}

    @property
    def weather(self) -> str:
        return self.main_door.weather

    @weather.setter
    def weather(self, weather: str) -> None:
        for door in self.doors:
            door.weather = weather

    def video(self, ytid: str) -> Video:
        return self.videos.get(ytid, self.healthy)

    def add(self, ytid: str, **video: Any) -> None:
        """Have a video under an id; see Video."""
        self.videos[ytid] = Video(**video)
        prepare(self.videos[ytid])

    def count(self, kind: str, ytid: str = '', n: int = 1) -> None:
        with self.lock:
            self.counts[kind] += n
            self.asked[kind, ytid] += n

    def fault(self, ytid: str, where: str, minimal: bool = True, itag: str = '') -> str:
        """The fault of a video that meets this request, if any; counts it off its `times`."""
        video = self.video(ytid)
        with self.lock:
            meant = video.fault.startswith(where) or (where == 'player' and video.fault in SAYS)
            if not meant or video.times <= 0 or (video.minimal and not minimal) or video.itag not in ('', itag):
                return ''
            video.times -= 1
            return video.fault

    def __enter__(self) -> 'YouTube':
        return self

    def __exit__(self, *args: object) -> None:
        self.closing.set()
        for door in self.doors:
            door.close()


# ---------------------------------------------------------------------------------------------------- rows and labels

LABELS = b"""index,mid,display_name
0,/m/09x0r,"Speech"
1,/m/05zppz,"Male speech, man speaking"
2,/m/068hy,"Domestic animals, pets"
"""
ONTOLOGY = b"""[{"id": "/m/0dgw9r", "name": "Human sounds", "child_ids": ["/m/09x0r"]},
{"id": "/m/09x0r", "name": "Speech", "child_ids": ["/m/05zppz"]},
{"id": "/m/05zppz", "name": "Male speech, man speaking", "child_ids": []},
{"id": "/m/068hy", "name": "Domestic animals, pets", "child_ids": []}]"""
TAGS = ['/m/09x0r', '/m/05zppz', '/m/068hy']
ALPHABET = string.ascii_letters + string.digits + '-_'


def rows(count: int, seed: int = 0) -> list[str]:
    """Rows that look like AudioSet's: ids with dashes and underscores, 10 s between 0 and 600 s, a few fractional."""
    dice = random.Random(seed)
    made = []
    for _ in range(count):
        start = dice.choice([0, 30, 30, 30, *range(0, 591, 10), 21.5])
        tags = ','.join(dice.sample(TAGS, dice.randint(1, 3)))
        made.append(f'{"".join(dice.choices(ALPHABET, k=11))}, {start:.3f}, {start + 10:.3f}, "{tags}"')
    return made


def segments_csv(lines: list[str]) -> bytes:
    header = ['# Segments csv created Sun Mar  5 10:54:31 2017', f'# num_ytids={len(lines)}']
    return '\n'.join([*header, '# YTID, start_seconds, end_seconds, positive_labels', *lines, '']).encode()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--rows', type=int, default=100, help='rows per split')
    parser.add_argument('--faults', type=float, default=0.1, help='share of videos that misbehave, 0 to 1')
    parser.add_argument('--latency', type=float, default=0.03, help='seconds per round trip')
    parser.add_argument('--port', type=int, default=8765)
    parser.add_argument('--weather', default='', help='for 20 s of each minute: bot, rate, dead, media 403 ...')
    parser.add_argument(
        '--shape', default='', help='how YouTube offers the sound: hls, dash, 18, dubbed ..., see Video'
    )
    parser.add_argument(
        '--says', nargs=3, metavar=('STATUS', 'REASON', 'SUBREASON'), help='what it says instead of playing'
    )
    parser.add_argument(
        '--sound-ends', type=float, default=0, help='s by which the sound of 18 ends before its picture'
    )
    parser.add_argument('--damaged', nargs='*', default=[], metavar='ITAG=SECONDS', help='formats that are shorter')
    parser.add_argument('--wait', type=float, default=0, help='s before media may be asked for')
    parser.add_argument('--share', type=float, default=1, help='share of videos that the last five are about, 0 to 1')
    args = parser.parse_args()
    damaged = {itag: float(seconds) for itag, _, seconds in (pair.partition('=') for pair in args.damaged)}
    says = tuple(args.says) if args.says else None
    special = Video(shape=args.shape, says=says, sound_ends=args.sound_ends, damaged=damaged, wait=args.wait)
    dice, other = random.Random(0), random.Random(1)
    faults = ['private', 'removed', 'terminated', 'player 500', 'player drop', 'media 403', 'media truncate']
    print(f'making media in {CACHE}, which takes a minute the first time ...', flush=True)
    prepare(Video())
    prepare(special)
    with socket.create_server(('127.0.0.1', args.port)) as listens, YouTube(args.latency, listens) as youtube:
        youtube.files['class_labels_indices.csv'] = LABELS
        youtube.files['ontology.json'] = ONTOLOGY
        youtube.files['mid_to_display_name.tsv'] = b'/m/09x0r\tSpeech\n'
        strong = [
            f'{row[:11]}_{float(row.split(", ")[1]) * 1000:.0f}\t1.5\t2.5\t/m/09x0r' for row in rows(args.rows, 0)
        ]
        head = 'segment_id\tstart_time_seconds\tend_time_seconds\tlabel'
        youtube.files['audioset_eval_strong.tsv'] = '\n'.join([head, *strong, '']).encode()
        for seed, split in enumerate(['eval', 'balanced_train', 'unbalanced_train']):
            made = rows(args.rows, seed)
            youtube.files[f'{split}_segments.csv'] = segments_csv(made)
            for row in made:
                video = dataclasses.replace(special if other.random() < args.share else Video())
                if dice.random() < args.faults:
                    fault = dice.choice(faults)
                    video = dataclasses.replace(video, fault=fault, times=1 if ' ' in fault else math.inf)
                youtube.videos[row[:11]] = video
        print('in another terminal:\n')
        print('export', *(f'{key}={shlex.quote(value)}' for key, value in youtube.env.items()))
        print(f'python download.py --root {pathlib.Path(tempfile.gettempdir(), "audioset")} --splits eval\n')
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(5)
                youtube.weather = args.weather if 20 <= time.monotonic() % 60 < 40 else ''
                print(dict(youtube.counts), youtube.weather, flush=True)
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
