"""The unit explorer: S beside R, unit by unit, in a page without a kernel and live with one."""

from robustbias.explorer.atlas import Atlas, atlas
from robustbias.explorer.page import links, page

__all__ = ["Atlas", "atlas", "links", "page"]
