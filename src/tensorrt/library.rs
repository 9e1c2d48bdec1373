//! Finding and opening a TensorRT library.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use cxx::UniquePtr;
use trt_fuse_ir::Capabilities;

use super::EngineError;
use super::ffi::bridge;

/// File names, those looked for first in front.
const NAMES: &[&str] = &["libtensorrt_rtx.so.1", "libnvinfer.so.11", "libnvinfer.so.10", "libnvinfer.so.8"];

/// Folders below a given one where pip wheels and archives have the library.
const BELOW: &[&str] = &["", "tensorrt_rtx_libs", "tensorrt_libs", "tensorrt", "lib"];

/// Which TensorRT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// TensorRT: builds for the GPU of the machine.
    TensorRt,
    /// TensorRT for RTX: builds for chosen GPU generations, without a GPU too.
    TensorRtRtx,
}

/// Which version of which TensorRT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Which TensorRT.
    pub flavour: Flavour,
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number.
    pub patch: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.flavour {
            Flavour::TensorRt => "TensorRT",
            Flavour::TensorRtRtx => "TensorRT-RTX",
        };
        write!(f, "{name} {}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// An opened library. It stays loaded until the process ends.
pub struct Library {
    pub(crate) inner: UniquePtr<bridge::Library>,
    path: PathBuf,
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.version(), self.path.display())
    }
}

impl Library {
    /// Opens a file, or a name that the loader knows.
    ///
    /// # Errors
    /// If it cannot be loaded, is no TensorRT, or is a version whose headers were not compiled in.
    pub fn open(path: &Path) -> Result<Self, EngineError> {
        let fail = |message: String| EngineError::Library { path: path.to_owned(), message };
        let name = path.to_str().ok_or_else(|| fail("the path is not UTF-8".to_owned()))?;
        let inner = bridge::open_library(name).map_err(|why| fail(why.what().to_owned()))?;
        let path = inner.as_ref().map(|library| PathBuf::from(library.path())).unwrap_or_default();
        Ok(Self { inner, path })
    }

    /// The version.
    pub fn version(&self) -> Version {
        let version = self.inner.version();
        Version {
            flavour: if version.rtx { Flavour::TensorRtRtx } else { Flavour::TensorRt },
            major: version.major.unsigned_abs(),
            minor: version.minor.unsigned_abs(),
            patch: version.patch.unsigned_abs(),
        }
    }

    /// What a network of this library can express.
    pub fn capabilities(&self) -> Capabilities {
        let Version { flavour, major, minor, patch } = self.version();
        match flavour {
            Flavour::TensorRt => Capabilities::tensorrt((major, minor, patch)),
            Flavour::TensorRtRtx => Capabilities::rtx((major, minor, patch)),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Where to look for a library.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// A file or folder. If there is one, nothing else is looked at.
    pub given: Option<Given>,
    /// Whether the loader is asked (`LD_LIBRARY_PATH`, `ldconfig`).
    pub loader: bool,
    /// Folders with Python packages.
    pub site_packages: Vec<PathBuf>,
    /// The cache folder of this program.
    pub cache: Option<PathBuf>,
}

/// A file or folder named by the user.
#[derive(Debug, Clone)]
pub struct Given {
    /// The file or folder.
    pub path: PathBuf,
    /// How it was named, for messages.
    pub by: &'static str,
}

impl Search {
    /// The usual places: `explicit`, else `TRT_FUSE_LIBRARY`, else the loader, pip's folders and the cache.
    pub fn usual(explicit: Option<&Path>) -> Self {
        let explicit = explicit.map(|path| Given { path: path.to_owned(), by: "the given library" });
        let by_env = || variable("TRT_FUSE_LIBRARY").map(|path| Given { path, by: "TRT_FUSE_LIBRARY" });
        Self { given: explicit.or_else(by_env), loader: true, site_packages: site_packages(), cache: cache_folder() }
    }

    /// Opens the first library that can be used.
    ///
    /// # Errors
    /// [`EngineError::NoLibrary`] with all places in one line; [`EngineError::Library`] if the one that was named by the
    /// user cannot be used.
    pub fn open(&self) -> Result<Library, EngineError> {
        if let Some(given) = &self.given {
            return open_given(given);
        }
        let mut unusable = Vec::new();
        let mut candidates: Vec<PathBuf> = Vec::new();
        for folder in self.site_packages.iter().chain(&self.cache_folders()) {
            candidates.extend(libraries_in(folder));
        }
        let by_loader = NAMES.iter().filter(|_| self.loader).map(PathBuf::from);
        for candidate in by_loader.chain(candidates) {
            match Library::open(&candidate) {
                Ok(library) => return Ok(library),
                // The loader does not know the name: nothing to tell.
                Err(_) if candidate.parent() == Some(Path::new("")) => {}
                Err(why) => unusable.push(why.to_string()),
            }
        }
        let mut tried = vec!["TRT_FUSE_LIBRARY (not set)".to_owned()];
        if self.loader {
            tried.push(format!("the loader ({})", NAMES.join(", ")));
        }
        tried.push(format!("{} site-packages folders", self.site_packages.len()));
        tried.extend(self.cache.iter().map(|cache| cache.display().to_string()));
        tried.extend(unusable);
        Err(EngineError::NoLibrary { tried: tried.join(", ") })
    }

    /// The cache folder and the folders in it.
    fn cache_folders(&self) -> Vec<PathBuf> {
        let Some(cache) = &self.cache else { return Vec::new() };
        let mut folders = vec![cache.clone()];
        folders.extend(children(cache));
        folders
    }
}

fn open_given(given: &Given) -> Result<Library, EngineError> {
    if !given.path.is_dir() {
        return Library::open(&given.path);
    }
    match libraries_in(&given.path).first() {
        Some(path) => Library::open(path),
        None => Err(EngineError::NoLibrary {
            tried: format!("{} ({}), which has none of {}", given.by, given.path.display(), NAMES.join(", ")),
        }),
    }
}

/// Libraries in a folder and in the folders that wheels and archives make there.
fn libraries_in(folder: &Path) -> Vec<PathBuf> {
    let files = BELOW.iter().flat_map(|below| NAMES.iter().map(move |name| folder.join(below).join(name)));
    files.filter(|file| file.is_file()).collect()
}

fn site_packages() -> Vec<PathBuf> {
    let mut roots: Vec<PathBuf> = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(variable).collect();
    roots.extend(variable("HOME").map(|home| home.join(".local")));
    roots.extend(["/usr/local", "/usr"].map(PathBuf::from));
    let mut folders = Vec::new();
    for root in roots {
        for python in children(&root.join("lib")) {
            let is_python =
                python.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("python3"));
            if is_python {
                folders.extend(["site-packages", "dist-packages"].map(|name| python.join(name)));
            }
        }
    }
    folders.retain(|folder| folder.is_dir());
    folders
}

fn cache_folder() -> Option<PathBuf> {
    variable("TRT_FUSE_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("trt-fuse")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/trt-fuse")))
}

/// An environment variable that is set to something.
fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| *value != OsString::new()).map(PathBuf::from)
}

/// Entries of a folder, sorted; none if it cannot be read.
fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_found_is_one_line_with_the_places_and_the_command() {
        let search = Search { cache: Some(PathBuf::from("/nowhere/cache")), ..Search::default() };
        insta::assert_snapshot!(
            search.open().unwrap_err(),
            @"no TensorRT library found; tried TRT_FUSE_LIBRARY (not set), 0 site-packages folders, /nowhere/cache; `make tensorrt` gets one"
        );
    }

    #[test]
    fn a_named_file_that_is_no_library_is_the_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("libnvinfer.so.10");
        std::fs::write(&file, "not a library").unwrap();
        let by_folder = Search {
            given: Some(Given { path: folder.path().to_owned(), by: "TRT_FUSE_LIBRARY" }),
            loader: true,
            ..Search::default()
        };
        let message = by_folder.open().unwrap_err().to_string();
        assert!(message.contains("libnvinfer.so.10") && message.contains("too short"), "{message}");
    }

    #[test]
    fn an_unusable_library_on_the_way_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let packages = folder.path().join("tensorrt_libs");
        std::fs::create_dir(&packages).unwrap();
        std::fs::write(packages.join("libnvinfer.so.10"), "not a library").unwrap();
        let search = Search { site_packages: vec![folder.path().to_owned()], ..Search::default() };
        let message = search.open().unwrap_err().to_string();
        assert!(message.contains("tensorrt_libs/libnvinfer.so.10: "), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }
}
