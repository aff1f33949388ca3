"""Images, audio and video of rows: read under control, decoded as transformers decodes them.

For workers. Pillow and PyAV are the optional extra `media`; importing this imports neither. What
a row has wrong is a ValueError or an OSError; a missing library is `MissingLibrary`.
"""

from .access import MediaAccess
from .audio import audio
from .encode import png, wav
from .images import image
from .requirements import NEEDED, MissingLibrary, require_media_library
from .video import check_video, video_file

__all__ = [
    "NEEDED",
    "MediaAccess",
    "MissingLibrary",
    "audio",
    "check_video",
    "image",
    "png",
    "require_media_library",
    "video_file",
    "wav",
]
