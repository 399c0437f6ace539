"""From a folder of recordings to an answer: vectors, a map, a linear probe, copies, and a page to send to others."""
