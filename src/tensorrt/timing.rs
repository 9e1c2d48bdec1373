//! Measured times of kernels, kept in a file between builds.
//!
//! ```text
//! TRTFTIM\x01 | xxh3 of the rest, u64, little-endian | TensorRT's timing cache
//! ```
//!
//! TensorRT trusts what it reads, so that a file is checked first. Which TensorRT and GPU the times are of, it tells by
//! itself.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use crate::files::{read_whole, write_whole};

/// The last byte is the version of the format.
const MAGIC: &[u8; 8] = b"TRTFTIM\x01";

/// A file of times.
pub(super) struct TimingFile<'p> {
    path: &'p Path,
}

impl<'p> TimingFile<'p> {
    pub(super) fn new(path: &'p Path) -> Self {
        Self { path }
    }

    /// The times in the file, none if there is no file; why it cannot be used.
    pub(super) fn read(&self) -> Result<Vec<u8>, String> {
        let file = match read_whole(self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error.to_string()),
        };
        let rest = file.strip_prefix(MAGIC).ok_or("it is no timing cache of trt-fuse")?;
        let (hash, times) = rest.split_first_chunk::<8>().ok_or("it is cut off")?;
        if u64::from_le_bytes(*hash) != xxh3_64(times) {
            return Err("its bytes are not those that were written".to_owned());
        }
        Ok(times.to_vec())
    }

    /// Puts new times in its place. `join` is given what lies there now, as others may have written since it was read;
    /// they wait meanwhile.
    pub(super) fn update(&self, join: impl FnOnce(&[u8]) -> Result<Vec<u8>, String>) -> Result<(), String> {
        let lock = File::create(self.lock_path()).map_err(|error| error.to_string())?;
        lock.lock().map_err(|error| error.to_string())?;
        let times = join(&self.read().unwrap_or_default())?;
        let parts: [&[u8]; 3] = [MAGIC, &xxh3_64(&times).to_le_bytes(), &times];
        write_whole(self.path, &parts).map_err(|error| error.to_string())
    }

    /// Beside the file, which is replaced and so cannot be locked itself.
    fn lock_path(&self) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(".lock");
        PathBuf::from(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_joined_with_those_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("times");
        let file = TimingFile::new(&path);
        assert_eq!(file.read(), Ok(Vec::new()));
        file.update(|there| Ok([there, b"one"].concat())).unwrap();
        // Another build wrote in between.
        TimingFile::new(&path).update(|there| Ok([there, b" two"].concat())).unwrap();
        file.update(|there| Ok([there, b" three"].concat())).unwrap();
        assert_eq!(file.read(), Ok(b"one two three".to_vec()));
    }

    #[test]
    fn writers_wait_for_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("times");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        TimingFile::new(&path).update(|there| Ok([there, b"x"].concat())).unwrap();
                    }
                });
            }
        });
        assert_eq!(TimingFile::new(&path).read().unwrap().len(), 160);
    }

    #[test]
    fn files_that_are_not_whole_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("times");
        let file = TimingFile::new(&path);
        file.update(|_| Ok(b"measured".to_vec())).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let refusal = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            file.read().unwrap_err()
        };
        insta::assert_snapshot!(refusal(b"something else"), @"it is no timing cache of trt-fuse");
        insta::assert_snapshot!(refusal(&whole[..10]), @"it is cut off");
        insta::assert_snapshot!(refusal(&whole[..20]), @"its bytes are not those that were written");
        // A bad file is replaced.
        file.update(|there| Ok([there, b"anew"].concat())).unwrap();
        assert_eq!(file.read(), Ok(b"anew".to_vec()));
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        let file = TimingFile::new(Path::new("/nowhere/times"));
        assert_eq!(file.read(), Ok(Vec::new()));
        assert!(file.update(|_| Ok(Vec::new())).unwrap_err().contains("No such file"));
    }
}
