//! Files as bytes, without reading them.

use std::fs::File;
use std::path::Path;

use bytes::Bytes;
use memmap2::Mmap;

use super::error::ImportError;

pub(crate) fn read_error(path: &Path, error: std::io::Error) -> ImportError {
    ImportError::Io { path: path.to_owned(), error }
}

/// The bytes of a file, mapped read-only; the map lives as long as any slice of it.
///
/// # Errors
/// If it is not a regular file or cannot be opened or mapped.
pub(crate) fn map_file(path: &Path) -> Result<Bytes, ImportError> {
    // Asked before opening, since opening a pipe waits for its other end.
    let metadata = path.metadata().map_err(|error| read_error(path, error))?;
    if !metadata.is_file() {
        return Err(ImportError::NotAFile { path: path.to_owned() });
    }
    if metadata.len() == 0 {
        return Ok(Bytes::new());
    }
    let file = File::open(path).map_err(|error| read_error(path, error))?;
    // SAFETY: a read-only private map of a regular file. Nothing here writes to it; whoever changes or cuts the file
    // while it is in use changes the weights read or ends this process, as with every memory-mapped model.
    let map = unsafe { Mmap::map(&file) }.map_err(|error| read_error(path, error))?;
    Ok(Bytes::from_owner(map))
}
