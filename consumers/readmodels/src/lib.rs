//! Read models: one SQL file each, the fold runner.
