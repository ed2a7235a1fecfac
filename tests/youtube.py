"""A stand-in for YouTube: a TLS-terminating proxy on loopback that yt-dlp and ffmpeg take for the real thing.

    python tests/youtube.py                 # then do what it says, in another terminal
    python tests/youtube.py --rows 500 --faults 0.2 --weather bot

It answers for www.youtube.com (`/watch`, `/youtubei/v1/player`), googlevideo.com (Range requests) and the bucket with the
CSVs, misbehaves per video as a test asks, and counts what it was asked. Nothing is sent beyond loopback.
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

import imageio_ffmpeg
import trustme

# ---------------------------------------------------------------------------------------------------------------- media

CACHE = pathlib.Path(tempfile.gettempdir()) / 'audioset-stand-in'
SIZES = {'134': (640, 360), '136': (1280, 720)}  # itag -> pixels; the video formats that are really served
FPS = 10
LOW, HIGH = (400, 40, 25), (2000, 60)  # Hz: second s sounds at 400 + 40 (s mod 25) and at 2000 + 60 (s div 25)
TONES = '+'.join(f'0.2*sin(2*PI*({f})*T)' for f in ('400+40*mod(floor(T),25)', '2000+60*floor(T/25)'))
PRIMING = {'140': 1024 / 44100}  # s; AAC begins with a frame of silence, which a file without edit lists keeps
FRAGMENTED = ('-movflags', '+dash+global_sidx+skip_trailer', '-f', 'mp4')  # one index, at the front, as YouTube's files
ENCODE = {
    '140': ('-c:a', 'aac', '-b:a', '128k', '-frag_duration', '10000000', *FRAGMENTED),
    '251': ('-c:a', 'libopus', '-b:a', '128k', '-cluster_time_limit', '10000', '-cues_to_front', '1', '-f', 'webm'),
    '134': ('-c:v', 'libx264', '-preset', 'ultrafast', '-g', '50', '-movflags', '+frag_keyframe', *FRAGMENTED),
    '136': ('-c:v', 'libx264', '-preset', 'ultrafast', '-g', '50', '-movflags', '+frag_keyframe', *FRAGMENTED),
}


def frames(seconds: float) -> Iterator[bytes]:
    """Gray frames of 16 x 9 pixels whose columns spell the frame's number in bits, the highest first."""
    for number in range(round(seconds * FPS)):
        yield bytes(255 * (number >> bit & 1) for bit in range(15, -1, -1)) * 9


def encode(itag: str, seconds: float, path: pathlib.Path) -> None:
    tones = TONES.replace('T', f'(t+{PRIMING.get(itag, 0)})').replace(',', r'\,')
    heard = f'aevalsrc={tones}+0.05*(random(0)-0.5):s=44100:d={seconds - PRIMING.get(itag, 0)}'
    source, stdin = ['-f', 'lavfi', '-i', heard, '-ac', '2'], None
    if itag in SIZES:
        scale = 'scale={}:{}:flags=neighbor,format=yuv420p'.format(*SIZES[itag])
        source = ['-f', 'rawvideo', '-pix_fmt', 'gray', '-s', '16x9', '-r', str(FPS), '-i', '-', '-vf', scale]
        stdin = b''.join(frames(seconds))
    command = [imageio_ffmpeg.get_ffmpeg_exe(), '-y', '-loglevel', 'error', *source, *ENCODE[itag], str(path)]
    subprocess.run(command, input=stdin, check=True)


def is_served(itag: str, seconds: float) -> bool:
    """The others are listed, as YouTube lists them, but nobody has made them: 720p of a long video takes long."""
    return itag in ENCODE and (itag != '136' or seconds < 100)


def make(seconds: float) -> None:
    """Have all formats of a video of this length made, before anybody waits for them."""
    for itag in ENCODE:
        if is_served(itag, seconds):
            media(itag, seconds)


@functools.cache
def media(itag: str, seconds: float) -> bytes:
    """The bytes of one format of a video that is `seconds` long; made once per machine and kept in its temp folder."""
    recipe = repr((itag, seconds, TONES, PRIMING, ENCODE[itag], FPS)).encode()
    path = CACHE / f'{itag}-{seconds}-{hashlib.sha256(recipe).hexdigest()[:12]}'
    if not path.exists():
        CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            encode(itag, seconds, pathlib.Path(scratch, 'media'))
            os.replace(pathlib.Path(scratch, 'media'), path)
    return path.read_bytes()


# ---------------------------------------------------------------------------------------------------------- what it says

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
        'This video contains content from Stand-In Records, who has blocked it in your country on copyright grounds',
    ),
    'country': ('UNPLAYABLE', 'Video unavailable', 'The uploader has not made this video available in your country'),
    'age': ('LOGIN_REQUIRED', 'Sign in to confirm your age', 'This video may be inappropriate for some users.'),
    'members': ('UNPLAYABLE', 'Join this channel to get access to members-only content like this video', ''),
    'upcoming': ('LIVE_STREAM_OFFLINE', 'This live event will begin in 3 days.', ''),
    'unavailable': ('ERROR', 'Video unavailable', ''),
    'kids': ('UNPLAYABLE', 'This video is not available', ''),
    'bot': ('LOGIN_REQUIRED', 'Sign in to confirm you’re not a bot', 'This helps protect our community. Learn more'),
    'captcha': ('UNPLAYABLE', 'Please verify', ''),
    'rate': ('UNPLAYABLE', 'Video unavailable', "This content isn't available, try again later."),
}
FORMATS = [  # itag, mime, codecs, bit/s, height
    *((i, 'video/mp4', 'avc1.4d401e', b, h) for i, b, h in [
        ('137', 4_300_000, 1080), ('136', 1_500_000, 720), ('135', 750_000, 480), ('134', 400_000, 360), ('133', 240_000, 240),
        ('160', 110_000, 144)]),
    *((i, 'video/webm', 'vp9', b, h) for i, b, h in [
        ('248', 2_600_000, 1080), ('247', 1_000_000, 720), ('244', 500_000, 480), ('243', 280_000, 360), ('242', 150_000, 240),
        ('278', 80_000, 144)]),
    *((i, 'video/mp4', 'av01.0.05M.08', b, h) for i, b, h in [
        ('399', 2_100_000, 1080), ('398', 900_000, 720), ('397', 450_000, 480), ('396', 250_000, 360), ('395', 130_000, 240)]),
    ('139', 'audio/mp4', 'mp4a.40.5', 50_000, None), ('140', 'audio/mp4', 'mp4a.40.2', 130_000, None),
    ('249', 'audio/webm', 'opus', 55_000, None), ('250', 'audio/webm', 'opus', 72_000, None),
    ('251', 'audio/webm', 'opus', 128_000, None),
]  # fmt: skip
LANGUAGES = ['af', 'ar', 'bg', 'cs', 'da', 'de', 'el', 'es', 'fi', 'fr', 'hi', 'hu', 'id', 'it', 'ja', 'ko', 'nl', 'pl', 'pt']
QUALITY = {144: 'tiny', 240: 'small', 360: 'medium', 480: 'large', 720: 'hd720', 1080: 'hd1080'}


@dataclasses.dataclass
class Video:
    """What the stand-in has under one id and how it misbehaves; without arguments, a healthy video.

    `fault` is a key of SAYS or `WHERE WHAT`: where is page, player, media or csv; what is an HTTP status, drop, stall,
    truncate or garbage. It happens `times` times. With `minimal`, only to player requests that no watch page preceded.
    """

    seconds: float = 630
    title: str = 'A “title”, with\ttab, émoji 🎧 and {braces} %(id)s'
    lacks: str = ''  # a mime type or itag that it does not offer
    fault: str = ''
    times: float = math.inf
    minimal: bool = False
    itag: str = ''  # a media fault of this format only


def format_json(ytid: str, video: Video, itag: str, mime: str, codecs: str, bitrate: int, height: int | None) -> dict:
    size = len(media(itag, video.seconds)) if is_served(itag, video.seconds) else int(bitrate * video.seconds / 8)
    query = {'expire': int(time.time()) + 21540, 'id': ytid, 'itag': itag, 'mime': mime, 'clen': size, 'dur': video.seconds}
    query |= {'sparams': 'expire,ei,ip,id,itag,source,requiressl', 'sig': 'AJEij0E' * 16, 'lsig': 'APaTxxM' * 16}
    made = {
        'itag': int(itag),
        'url': 'https://rr3---sn-stand-in.googlevideo.com/videoplayback?' + urllib.parse.urlencode(query),
        'mimeType': f'{mime}; codecs="{codecs}"',
        'bitrate': bitrate,
        'averageBitrate': bitrate,
        'contentLength': str(size),
        'approxDurationMs': str(round(video.seconds * 1000)),
        'initRange': {'start': '0', 'end': '740'},
        'indexRange': {'start': '741', 'end': '1500'},
        'lastModified': '1594911253000000',
        'projectionType': 'RECTANGULAR',
    }
    if height:
        size = {'width': height * 16 // 9, 'height': height, 'fps': FPS, 'qualityLabel': f'{height}p'}
        return made | size | {'quality': QUALITY[height]}
    quality = 'AUDIO_QUALITY_MEDIUM' if bitrate > 100_000 else 'AUDIO_QUALITY_LOW'
    return made | {'quality': 'tiny', 'audioQuality': quality, 'audioSampleRate': '44100', 'audioChannels': 2}


def player_json(ytid: str, video: Video, client: str, refused: str) -> dict:
    status, reason, subreason = SAYS.get(refused, ('OK', '', ''))
    screen: dict = {'playerErrorMessageRenderer': {'reason': {'simpleText': reason}, 'subreason': {'simpleText': subreason}}}
    if refused == 'captcha':
        screen = {'playerCaptchaViewModel': {'html': ''}}
    answer: dict = {
        'responseContext': {'visitorData': 'CgtTdGFuZEluVmlzaXRvcg%3D%3D'},
        'playabilityStatus': {'status': status, 'playableInEmbed': True},
        'videoDetails': {
            'videoId': ytid,
            'title': video.title,
            'lengthSeconds': str(int(video.seconds)),
            'keywords': ['sound', 'stand-in'],
            'channelId': 'UC' + 'x' * 22,
            'shortDescription': 'Made up for tests. ' * 40,
            'thumbnail': {'thumbnails': [{'url': f'https://i.ytimg.com/vi/{ytid}/{n}.jpg', 'width': n} for n in range(5)]},
            'viewCount': '1234567',
            'author': 'Stand-in',
            'isLiveContent': False,
        },
    }
    if refused:
        return answer | {'playabilityStatus': {'status': status, 'reason': reason, 'errorScreen': screen}}
    formats = [format_json(ytid, video, *row) for row in FORMATS if video.lacks not in (row[0], row[1])]
    if client == 'WEB':  # YouTube gives browsers no addresses any more, only its own streaming protocol
        formats = [{key: value for key, value in made.items() if key != 'url'} for made in formats]
    track = {'baseUrl': f'https://www.youtube.com/api/timedtext?v={ytid}&lang=en&kind=asr', 'languageCode': 'en', 'kind': 'asr'}
    captions: dict = {'captionTracks': [track], 'audioTracks': [{'captionTrackIndices': [0]}]}
    if client == 'WEB':  # only browsers are offered translations
        captions['translationLanguages'] = [{'languageCode': c, 'languageName': {'simpleText': c}} for c in LANGUAGES]
    return answer | {
        'streamingData': {'expiresInSeconds': '21540', 'adaptiveFormats': formats},
        'captions': {'playerCaptionsTracklistRenderer': captions},
    }


def watch_page(ytid: str, video: Video, refused: str) -> str:
    """The page of a video, as heavy as YouTube's: about a megabyte, half of it data."""
    client = {'clientName': 'WEB', 'clientVersion': '2.20260708.00.00', 'visitorData': 'CgtTdGFuZEluVmlzaXRvcg%3D%3D'}
    config = {
        'INNERTUBE_CONTEXT': {'client': client},
        'INNERTUBE_CLIENT_VERSION': client['clientVersion'],
        'INNERTUBE_CONTEXT_CLIENT_NAME': 1,
        'VISITOR_DATA': client['visitorData'],
        'PLAYER_JS_URL': '/s/player/5bdfe6d5/player_ias.vflset/en_US/base.js',
        'STS': 20277,
    }
    response = json.dumps(player_json(ytid, video, 'WEB', refused))
    related = [{'compactVideoRenderer': {'videoId': f'{n:011}', 'accessibility': [LANGUAGES] * 200}} for n in range(20)]
    data = json.dumps({'contents': {'twoColumnWatchNextResults': {'secondaryResults': related}}})
    kids = 'This video is made for kids' if video.fault == 'kids' else ''
    return (
        f'<!DOCTYPE html><html><head><title>{ytid} - YouTube</title><script>ytcfg.set({json.dumps(config)});</script></head>'
        f'<body><script>var ytInitialPlayerResponse = {response};</script>'
        f'<script>var ytInitialData = {data};</script><style>{"a{color:red}" * 40_000}</style>{kids}</body></html>'
    )


# ------------------------------------------------------------------------------------------------------------ the server


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection: a plain proxy request for http, CONNECT and then TLS for https."""

    protocol_version = 'HTTP/1.1'
    disable_nagle_algorithm = True
    server: 'Door'
    host = ''

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
        if hasattr(socket, 'TCP_QUICKACK'):  # behind a proxy urllib3 waits for it (Nagle), towards YouTube itself it does not
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        super().handle_one_request()

    def kind(self) -> str:
        return 'media' if self.host.endswith('googlevideo.com') else 'api' if 'youtube' in self.host else 'csv'

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        self.host = url.hostname or self.host
        query = dict(urllib.parse.parse_qsl(url.query))
        if self.dead() or (self.path.startswith('http:') and self.unknown()):
            return
        time.sleep(self.server.latency)
        if url.path.endswith('/videoplayback'):
            self.media(query['id'], query['itag'])
        elif url.path == '/watch' or url.path.startswith('/embed/'):
            self.page(query.get('v') or url.path.rpartition('/')[2])
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

    def page(self, ytid: str) -> None:
        self.server.count('page', ytid)
        fault = self.server.fault(ytid, 'page')
        if not self.broken(fault):
            video = self.server.video(ytid)
            refused = fault or ('' if video.minimal else video.fault)
            self.reply(watch_page(ytid, video, refused if refused in SAYS else '').encode(), 'text/html')

    def media(self, ytid: str, itag: str) -> None:
        self.server.count('media', ytid)
        video = self.server.video(ytid)
        first, last = self.headers.get('Range', 'bytes=0-')[6:].split('-')
        late = {video.fault, self.server.weather} & {'media truncate', 'media stall'}  # the index arrives, the rest does not
        fault = '' if late and first == '0' else self.server.fault(ytid, 'media', itag=itag)
        if self.broken('' if fault in late else fault):
            return
        body = media(itag, video.seconds) if is_served(itag, video.seconds) else b''
        start, stop = int(first), min(int(last) + 1, len(body)) if last else len(body)
        if start >= len(body):
            self.reply(b'', status=416 if body else 404)
            return
        self.send_response(206 if 'Range' in self.headers else 200)
        self.send_header('Content-Type', 'video/webm' if itag == '251' else 'video/mp4')
        self.send_header('Content-Range', f'bytes {start}-{stop - 1}/{len(body)}')
        self.send_header('Accept-Ranges', 'bytes')
        self.send_header('Content-Length', str(stop - start))
        self.end_headers()
        self.pour(body[start : start + 10_000 if fault else stop])
        if fault == 'media stall':
            self.server.closing.wait(600)
        self.close_connection = self.close_connection or bool(fault)

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

    def __init__(self, site: 'YouTube', port: int = 0, login: str = '', tls: bool = False) -> None:
        super().__init__(('127.0.0.1', port), Handler)
        self.site = site
        self.weather, self.chance = '', 1.0  # a fault of requests that come this way, as in Video, and how likely it is;
        # 'dead': every connection breaks
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
        if (weather.startswith(where) or (weather in SAYS and where != 'media')) and random.random() < self.chance:
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


class YouTube:
    """The stand-in, serving while the `with` block lasts. `env` is what a subprocess needs to find and trust it."""

    def __init__(self, port: int = 0, latency: float = 0.0):
        self.latency = latency  # s, per round trip
        self.healthy = Video()
        self.videos: dict[str, Video] = {}
        self.files: dict[str, bytes] = {}  # the bucket: file name -> content
        self.counts: Counter[str] = Counter()
        self.asked: Counter[tuple[str, str]] = Counter()  # (kind, id) -> requests
        self.clients: Counter[str] = Counter()
        self.cookies: set[str] = set()  # Cookie headers that came
        self.tokens: set[str] = set()  # proofs of origin that came with player requests
        self.set_cookie = ''  # sent with every page
        self.closing = threading.Event()
        self.lock = threading.Lock()
        authority = trustme.CA()
        names = ['youtube.com', '*.youtube.com', '*.googlevideo.com', '*.googleapis.com', '*.githubusercontent.com']
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*names, 'localhost', '127.0.0.1').configure_cert(self.tls)
        self.scratch = tempfile.TemporaryDirectory()
        self.ca = pathlib.Path(self.scratch.name, 'ca.pem')
        authority.cert_pem.write_to_path(self.ca)
        self.doors: list[Door] = []
        self.main_door = self.door(port=port)

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
        make(self.videos[ytid].seconds)

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
        self.scratch.cleanup()


# ------------------------------------------------------------------------------------------------------- rows and labels

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
    args = parser.parse_args()
    dice = random.Random(0)
    faults = ['private', 'removed', 'terminated', 'player 500', 'player drop', 'media 403', 'media truncate']
    print(f'making media in {CACHE}, which takes a minute the first time ...', flush=True)
    make(Video().seconds)
    with YouTube(args.port, args.latency) as youtube:
        youtube.files['class_labels_indices.csv'] = LABELS
        youtube.files['ontology.json'] = ONTOLOGY
        youtube.files['mid_to_display_name.tsv'] = b'/m/09x0r\tSpeech\n'
        strong = [f'{row[:11]}_{float(row.split(", ")[1]) * 1000:.0f}\t1.5\t2.5\t/m/09x0r' for row in rows(args.rows, 0)]
        head = 'segment_id\tstart_time_seconds\tend_time_seconds\tlabel'
        youtube.files['audioset_eval_strong.tsv'] = '\n'.join([head, *strong, '']).encode()
        for seed, split in enumerate(['eval', 'balanced_train', 'unbalanced_train']):
            made = rows(args.rows, seed)
            youtube.files[f'{split}_segments.csv'] = segments_csv(made)
            for row in made:
                if dice.random() < args.faults:
                    fault = dice.choice(faults)
                    youtube.videos[row[:11]] = Video(fault=fault, times=1 if ' ' in fault else math.inf)
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
