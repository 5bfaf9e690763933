"""Chapter 08: units of S and R side by side, in a page without a kernel and live with one."""
