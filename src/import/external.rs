//! External data: tensors that lie in files beside the model.
//!
//! The model names those files, so a stranger's model may name any. Only regular files inside the model's folder are
//! read, after symbolic links have been followed. Where the model's path is itself a link (as in the cache of
//! Hugging Face, which links `snapshots/REVISION/model.onnx` and `.../model.onnx_data` to `blobs/...`), the folder of
//! the file that it leads to counts too. Each file is mapped once and shared by all its tensors.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;

use super::error::ImportError;
use super::map::{map_file, read_error};
use super::proto::StringStringEntryProto;

/// The files that a model's external data may be in.
#[derive(Debug, Default)]
pub(crate) struct ExternalFiles {
    /// Folders that hold the files, links followed; the first is where relative paths start.
    folders: Vec<PathBuf>,
    /// Contents by path, links followed.
    maps: BTreeMap<PathBuf, Bytes>,
}

impl ExternalFiles {
    /// No file at all: for a model without a folder.
    pub(crate) fn none() -> Self {
        Self::default()
    }

    /// The files beside the model at `path`.
    ///
    /// # Errors
    /// If the path does not lead to a file.
    pub(crate) fn beside(path: &Path) -> Result<Self, ImportError> {
        let parent = |path: &Path| match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let mut files = Self::in_folder(&parent(path))?;
        let resolved = path.canonicalize().map_err(|error| read_error(path, error))?;
        let folder = parent(&resolved);
        if !files.folders.contains(&folder) {
            files.folders.push(folder);
        }
        Ok(files)
    }

    /// The files in `folder`.
    ///
    /// # Errors
    /// If there is no such folder.
    pub(crate) fn in_folder(folder: &Path) -> Result<Self, ImportError> {
        let folder = folder.canonicalize().map_err(|error| read_error(folder, error))?;
        Ok(Self { folders: vec![folder], maps: BTreeMap::new() })
    }

    /// The bytes that the `external_data` entries of `tensor` name; not copied.
    ///
    /// # Errors
    /// If the path leads out of the model's folder, or the file or the range does not exist.
    pub(crate) fn read(&mut self, tensor: &str, entries: &[StringStringEntryProto]) -> Result<Bytes, ImportError> {
        let value = |key: &str| entries.iter().rev().find(|entry| entry.key == key).map(|entry| entry.value.as_str());
        let location = value("location").unwrap_or_default();
        let refuse =
            |reason: String| ImportError::External { tensor: tensor.to_owned(), location: location.to_owned(), reason };
        let number = |key: &str| match value(key) {
            None => Ok(None),
            Some(text) => match text.parse::<u64>() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(refuse(format!("{key} `{}` is not a number of bytes", super::error::show(text)))),
            },
        };
        let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
        let file = self.resolve(location).map_err(refuse)?;
        let bytes = match self.maps.get(&file) {
            Some(bytes) => bytes.clone(),
            None => {
                let bytes = map_file(&file)?;
                self.maps.insert(file, bytes.clone());
                bytes
            }
        };
        let size = bytes.len() as u64;
        let end = match length {
            Some(length) => offset.checked_add(length),
            None => Some(size),
        };
        match end {
            // Both ends are at most the length of a slice, hence fit usize.
            Some(end) if offset <= end && end <= size => Ok(bytes.slice(offset as usize..end as usize)),
            _ => {
                let length = length.map_or_else(|| "the rest".to_owned(), |length| format!("{length} bytes"));
                Err(refuse(format!("{length} at offset {offset} of a file of {size} bytes")))
            }
        }
    }

    /// The path of the file at `location`, links followed; the reason if it must not be read.
    fn resolve(&self, location: &str) -> Result<PathBuf, String> {
        if self.folders.is_empty() {
            return Err("a model in memory has no folder: name one in ImportOptions::folder".to_owned());
        }
        if location.is_empty() {
            return Err("no location given".to_owned());
        }
        for component in Path::new(location).components() {
            match component {
                Component::Normal(_) | Component::CurDir => {}
                Component::ParentDir => return Err("the path must not contain `..`".to_owned()),
                Component::RootDir | Component::Prefix(_) => return Err("the path must be relative".to_owned()),
            }
        }
        // canonicalize refuses NUL bytes like any other bad path.
        let mut missing = None;
        for folder in &self.folders {
            let path = folder.join(location);
            match path.canonicalize() {
                Ok(file) if !self.folders.iter().any(|folder| file.starts_with(folder)) => {
                    return Err(format!("a link leads out of the model's folder, to {}", file.display()));
                }
                Ok(file) => return Ok(file),
                Err(error) => missing = missing.or(Some(format!("cannot open {}: {error}", path.display()))),
            }
        }
        Err(missing.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Seek, SeekFrom, Write};
    use std::os::unix::fs::symlink;

    use super::*;

    fn entries(pairs: &[(&str, &str)]) -> Vec<StringStringEntryProto> {
        let entry =
            |(key, value): &(&str, &str)| StringStringEntryProto { key: (*key).to_owned(), value: (*value).to_owned() };
        pairs.iter().map(entry).collect()
    }

    fn location(path: &str) -> Vec<StringStringEntryProto> {
        entries(&[("location", path)])
    }

    /// A folder `model` with `w.bin` of ten bytes and a folder `sub`, and a file `secret` beside it.
    fn folder() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let model = root.path().join("model");
        fs::create_dir_all(model.join("sub")).unwrap();
        fs::write(model.join("w.bin"), b"0123456789").unwrap();
        fs::write(model.join("sub/v.bin"), b"abc").unwrap();
        fs::write(root.path().join("secret"), b"secret").unwrap();
        (root, model)
    }

    fn reason(result: Result<Bytes, ImportError>) -> String {
        match result {
            Err(ImportError::External { tensor, reason, .. }) => {
                assert_eq!(tensor, "w");
                reason
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn ranges_are_slices_of_one_map() {
        let (_root, model) = folder();
        let mut files = ExternalFiles::in_folder(&model).unwrap();
        let all = files.read("w", &location("w.bin")).unwrap();
        assert_eq!(all, "0123456789");
        let part = files.read("w", &entries(&[("location", "./w.bin"), ("offset", "2"), ("length", "3")])).unwrap();
        assert_eq!(part, "234");
        assert_eq!(part.as_ptr() as usize, all.as_ptr() as usize + 2);
        assert_eq!(files.read("w", &entries(&[("location", "w.bin"), ("offset", "8")])).unwrap(), "89");
        assert_eq!(files.read("w", &entries(&[("location", "w.bin"), ("offset", "10")])).unwrap(), "");
        assert_eq!(files.read("w", &location("sub/v.bin")).unwrap(), "abc");
    }

    #[test]
    fn ranges_beyond_the_file_are_refused() {
        let (_root, model) = folder();
        let mut files = ExternalFiles::in_folder(&model).unwrap();
        let mut read = |offset, length| {
            reason(files.read("w", &entries(&[("location", "w.bin"), ("offset", offset), ("length", length)])))
        };
        assert_eq!(read("8", "3"), "3 bytes at offset 8 of a file of 10 bytes");
        assert_eq!(read("18446744073709551615", "2"), "2 bytes at offset 18446744073709551615 of a file of 10 bytes");
        assert_eq!(read("11", "0"), "0 bytes at offset 11 of a file of 10 bytes");
        assert_eq!(read("-1", "1"), "offset `-1` is not a number of bytes");
        assert_eq!(read("0", "1e3"), "length `1e3` is not a number of bytes");
    }

    #[test]
    fn paths_out_of_the_folder_are_refused() {
        let (root, model) = folder();
        let mut files = ExternalFiles::in_folder(&model).unwrap();
        let mut read = |path: &str| reason(files.read("w", &location(path)));
        assert_eq!(read("../secret"), "the path must not contain `..`");
        assert_eq!(read("sub/../../secret"), "the path must not contain `..`");
        assert_eq!(read(root.path().join("secret").to_str().unwrap()), "the path must be relative");
        assert_eq!(read(""), "no location given");
        assert!(read("absent").starts_with("cannot open "));
        assert!(read("w.bin\0").starts_with("cannot open "));
        assert!(reason(ExternalFiles::none().read("w", &location("w.bin"))).contains("ImportOptions::folder"));
    }

    #[test]
    fn links_are_followed_inside_the_folder_only() {
        let (root, model) = folder();
        symlink(root.path().join("secret"), model.join("out")).unwrap();
        symlink(root.path(), model.join("up")).unwrap();
        symlink("w.bin", model.join("in")).unwrap();
        let mut files = ExternalFiles::in_folder(&model).unwrap();
        assert!(reason(files.read("w", &location("out"))).starts_with("a link leads out"));
        assert!(reason(files.read("w", &location("up/secret"))).starts_with("a link leads out"));
        assert_eq!(files.read("w", &location("in")).unwrap(), "0123456789");
        // A sibling whose name starts like the folder's is not inside it.
        fs::create_dir(root.path().join("model2")).unwrap();
        fs::write(root.path().join("model2/x"), b"x").unwrap();
        symlink(root.path().join("model2/x"), model.join("x")).unwrap();
        assert!(reason(files.read("w", &location("x"))).starts_with("a link leads out"));
    }

    #[test]
    fn a_linked_model_opens_the_folder_it_leads_to() {
        let (root, _) = folder();
        let (blobs, snapshot) = (root.path().join("blobs"), root.path().join("snapshots/abc"));
        fs::create_dir_all(&blobs).unwrap();
        fs::create_dir_all(&snapshot).unwrap();
        fs::write(blobs.join("1"), b"model").unwrap();
        fs::write(blobs.join("2"), b"weights").unwrap();
        symlink("../../blobs/1", snapshot.join("model.onnx")).unwrap();
        symlink("../../blobs/2", snapshot.join("model.onnx_data")).unwrap();
        symlink("../../secret", snapshot.join("secret")).unwrap();
        let mut files = ExternalFiles::beside(&snapshot.join("model.onnx")).unwrap();
        assert_eq!(files.read("w", &location("model.onnx_data")).unwrap(), "weights");
        assert!(reason(files.read("w", &location("secret"))).starts_with("a link leads out"));
    }

    #[test]
    fn files_beyond_two_gigabytes_are_read() {
        let (_root, model) = folder();
        // Sparse: three GiB of nothing and three bytes.
        let mut file = fs::File::create(model.join("large.bin")).unwrap();
        file.seek(SeekFrom::Start(3 << 30)).unwrap();
        file.write_all(b"end").unwrap();
        let mut files = ExternalFiles::in_folder(&model).unwrap();
        let entries = entries(&[("location", "large.bin"), ("offset", "3221225472"), ("length", "3")]);
        assert_eq!(files.read("w", &entries).unwrap(), "end");
    }

    #[test]
    fn only_regular_files_are_read() {
        let (_root, model) = folder();
        let mut files = ExternalFiles::in_folder(&model).unwrap();
        assert!(matches!(files.read("w", &location("sub")), Err(ImportError::NotAFile { .. })));
        fs::write(model.join("none"), b"").unwrap();
        assert_eq!(files.read("w", &location("none")).unwrap(), "");
    }
}
