//! The graph rewrites of trt-fuse.
