"""The unit explorer: S beside R, unit by unit, in a page without a kernel and live with one."""

from robustbias.explorer.atlas import Atlas, atlas, measured, tables
from robustbias.explorer.live import app, served
from robustbias.explorer.page import links, page

__all__ = ["Atlas", "app", "atlas", "links", "measured", "page", "served", "tables"]
