"""Chapter 08: S beside R, unit by unit, in a page without a kernel and live with one."""
