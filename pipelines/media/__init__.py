"""Images, audio and video of rows: read under control, decoded as transformers decodes them.

Workers use this. Pillow and PyAV are the optional extra `media`; importing this imports neither.
A row that can't be read raises ValueError or OSError, a missing library `MissingLibrary`.
"""

from .access import MediaAccess, is_below
from .audio import decode_audio
from .encode import encode_png, encode_wav
from .images import decode_image
from .media_libraries import NEEDED, MissingLibrary, require_media_library
from .small_media import describe_small_media
from .video import check_video, open_video_file
from .video_frames import let_pyav_decode

__all__ = [
    "NEEDED",
    "MediaAccess",
    "MissingLibrary",
    "check_video",
    "decode_audio",
    "decode_image",
    "describe_small_media",
    "encode_png",
    "encode_wav",
    "is_below",
    "let_pyav_decode",
    "open_video_file",
    "require_media_library",
]
