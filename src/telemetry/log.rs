//! Log lines: text on a terminal, JSON otherwise; the filter can be changed while running.
