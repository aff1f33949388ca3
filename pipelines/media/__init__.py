"""Images, audio and video of rows: read under control, decoded as transformers decodes them.

Workers use this. Pillow and PyAV are the optional extra `media`; importing this imports neither.
A row that can't be read raises ValueError or OSError, a missing library `MissingLibrary`.
"""

from .access import MediaAccess, is_below
from .audio import audio
from .encode import png, wav
from .images import image
from .media_libraries import NEEDED, MissingLibrary, require_media_library
from .small_media import describe_small_media
from .video import check_video, video_file
from .video_frames import let_pyav_decode

__all__ = [
    "NEEDED",
    "MediaAccess",
    "MissingLibrary",
    "audio",
    "check_video",
    "describe_small_media",
    "image",
    "is_below",
    "let_pyav_decode",
    "png",
    "require_media_library",
    "video_file",
    "wav",
]
