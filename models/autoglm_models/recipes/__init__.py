"""How each bundle is made and judged. Runs in a process of its own, with the build tools on its path."""
