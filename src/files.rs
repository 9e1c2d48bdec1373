//! Files that appear whole or not at all.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Writes a file of these parts, all of it or nothing: it is written beside its place, then renamed.
///
/// # Errors
/// If the folder or the file cannot be written.
pub(crate) fn write_whole(path: &Path, parts: &[&[u8]]) -> std::io::Result<()> {
    let place = match path.metadata() {
        // A device or a pipe cannot be replaced, and has no beginning to be cut off at.
        Ok(metadata) if !metadata.is_file() && !metadata.is_dir() => {
            let mut file = std::fs::OpenOptions::new().write(true).open(path)?;
            return parts.iter().try_for_each(|part| file.write_all(part));
        }
        // What a link names is written, and the link stays.
        Ok(_) => path.canonicalize()?,
        Err(_) => path.to_owned(),
    };
    let folder = place.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // As any new file, not as a secret: less what the umask takes.
    let permissions = Permissions::from_mode(0o666);
    let mut file = tempfile::Builder::new().permissions(permissions).tempfile_in(folder)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.as_file().sync_all()?;
    file.persist(&place)?;
    Ok(())
}

/// Reads a regular file: a pipe would wait for its other end, and a device has none.
///
/// # Errors
/// If it is no file, or cannot be read.
pub(crate) fn read_whole(path: &Path) -> std::io::Result<Vec<u8>> {
    if !path.metadata()?.is_file() {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is no file"));
    }
    std::fs::read(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_stays_and_what_it_names_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        write_whole(&file, &[b"a"]).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write_whole(&link, &[b"b", b"c"]).unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(read_whole(&file).unwrap(), b"bc");
    }

    #[test]
    fn a_device_is_written_to_and_not_read() {
        write_whole(Path::new("/dev/null"), &[b"a"]).unwrap();
        assert!(!Path::new("/dev/null").metadata().unwrap().is_file());
        assert_eq!(read_whole(Path::new("/dev/zero")).unwrap_err().to_string(), "it is no file");
    }
}
