//! Tensors in NumPy's file format.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use thiserror::Error;
use trt_fuse_ir::{DType, Tensor};

use crate::files::write_whole;

const MAGIC: &[u8] = b"\x93NUMPY";

/// NumPy's descriptions of element types, little-endian.
const TYPES: &[(DType, &str)] = &[
    (DType::F32, "<f4"),
    (DType::F64, "<f8"),
    (DType::F16, "<f2"),
    (DType::I8, "|i1"),
    (DType::I16, "<i2"),
    (DType::I32, "<i4"),
    (DType::I64, "<i8"),
    (DType::U8, "|u1"),
    (DType::U16, "<u2"),
    (DType::U32, "<u4"),
    (DType::U64, "<u8"),
    (DType::Bool, "|b1"),
];

/// Why a file was not read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NpyError {
    /// The system refuses.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An input is not given as NAME=FILE.
    #[error("`{0}` is no NAME=FILE")]
    Usage(String),
}

impl NpyError {
    /// For text that is no NAME=FILE.
    pub fn usage(text: &str) -> Self {
        Self::Usage(text.to_owned())
    }
}

/// Reads an array in C order.
///
/// # Errors
/// If the file cannot be read, is not of the format, or has a type that tensors do not have.
pub fn read(path: &Path) -> Result<Tensor, NpyError> {
    let file = fs::read(path).map_err(|source| NpyError::File { path: path.to_owned(), source })?;
    parse(&file).map_err(|reason| NpyError::Format { path: path.to_owned(), reason })
}

/// Writes a tensor, and makes the folder that it goes to.
///
/// # Errors
/// If the file cannot be written, or NumPy has no such type.
pub fn write(path: &Path, tensor: &Tensor) -> Result<(), NpyError> {
    let content = format(tensor).map_err(|reason| NpyError::Format { path: path.to_owned(), reason })?;
    let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
    folder
        .and_then(|()| write_whole(path, &[&content]))
        .map_err(|source| NpyError::File { path: path.to_owned(), source })
}

fn parse(file: &[u8]) -> Result<Tensor, String> {
    let cut = || "it is cut off".to_owned();
    let rest = file.strip_prefix(MAGIC).ok_or("it is no .npy file")?;
    let (version, rest) = rest.split_first_chunk::<2>().ok_or_else(cut)?;
    let (length, rest) = match version[0] {
        1 => {
            let (length, rest) = rest.split_first_chunk::<2>().ok_or_else(cut)?;
            (usize::from(u16::from_le_bytes(*length)), rest)
        }
        2 | 3 => {
            let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
            (u32::from_le_bytes(*length) as usize, rest)
        }
        other => return Err(format!("version {other} of the format is not known")),
    };
    let (header, data) = rest.split_at_checked(length).ok_or_else(cut)?;
    let header = std::str::from_utf8(header).map_err(|_| "its header is no text".to_owned())?;
    let descr = field(header, "descr")?.trim_matches(['\'', '"']);
    // One byte has no order.
    let named = |row: &&(DType, &str)| row.1 == descr || row.1.get(1..) == descr.strip_prefix(['|', '<', '=']);
    let (dtype, _) = TYPES.iter().find(named).ok_or_else(|| format!("element type {descr} is not taken"))?;
    if field(header, "fortran_order")? != "False" {
        return Err("it is in Fortran order: write numpy.ascontiguousarray(x)".to_owned());
    }
    let shape = field(header, "shape")?.trim_matches(['(', ')']);
    let extents = shape.split(',').map(str::trim).filter(|extent| !extent.is_empty());
    let dims: Vec<usize> =
        extents.map(str::parse).collect::<Result<_, _>>().map_err(|_| format!("shape ({shape}) is no shape"))?;
    Tensor::new(*dtype, dims, Bytes::copy_from_slice(data)).map_err(|why| why.to_string())
}

/// The text of an entry of the header, which is a dictionary as Python writes it.
fn field<'h>(header: &'h str, name: &str) -> Result<&'h str, String> {
    let missing = || format!("its header has no `{name}`");
    let (_, rest) = header.split_once(&format!("'{name}':")).ok_or_else(missing)?;
    let rest = rest.trim_start();
    let end = match rest.strip_prefix('(') {
        Some(inner) => inner.find(')').map(|at| at + 2),
        None => rest.find([',', '}']),
    };
    rest.get(..end.ok_or_else(missing)?).map(str::trim).ok_or_else(missing)
}

fn format(tensor: &Tensor) -> Result<Vec<u8>, String> {
    let row = TYPES.iter().find(|row| row.0 == tensor.dtype());
    let (_, descr) = row.ok_or_else(|| format!("NumPy has no element type {}", tensor.dtype()))?;
    let extents: String = tensor.dims().iter().map(|extent| format!("{extent}, ")).collect();
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}), }}", extents.trim_end());
    // The data begin at a multiple of 64.
    let unpadded = MAGIC.len() + 4 + header.len() + 1;
    header.push_str(&" ".repeat(unpadded.next_multiple_of(64) - unpadded));
    header.push('\n');
    let length = u16::try_from(header.len()).map_err(|_| "its shape is too long".to_owned())?;
    let mut file = MAGIC.to_vec();
    file.extend([1, 0]);
    file.extend(length.to_le_bytes());
    file.extend(header.as_bytes());
    file.extend_from_slice(tensor.bytes());
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        for tensor in [
            Tensor::from_vec([2, 3], vec![1.0_f32, -2.0, 3.0, 4.0, 5.0, 6.5]).unwrap(),
            Tensor::vector(vec![1_i64, -1]),
            Tensor::vector(vec![true, false]),
            Tensor::scalar(half::f16::from_f32(0.5)),
            Tensor::from_vec([0, 2], Vec::<u8>::new()).unwrap(),
            Tensor::full([3], 7_i32).unwrap(),
        ] {
            assert_eq!(parse(&format(&tensor).unwrap()).unwrap(), tensor);
        }
    }

    #[test]
    fn the_bytes_are_those_of_numpy() {
        // numpy.save(f, numpy.array([[1, 2]], "<i4"))
        let mut expected =
            b"\x93NUMPY\x01\x00v\x00{'descr': '<i4', 'fortran_order': False, 'shape': (1, 2), }".to_vec();
        expected.resize(127, b' ');
        expected.extend(b"\n\x01\x00\x00\x00\x02\x00\x00\x00");
        assert_eq!(parse(&expected).unwrap(), Tensor::from_vec([1, 2], vec![1_i32, 2]).unwrap());
    }

    #[test]
    fn broken_files_are_refused() {
        let whole = format(&Tensor::vector(vec![1.0_f32, 2.0])).unwrap();
        for end in 0..whole.len() {
            assert!(parse(&whole[..end]).is_err(), "{end}");
        }
        let changed = |from: &str, to: &str| {
            let text = String::from_utf8_lossy(&whole[10..whole.len() - 8]).replace(from, to);
            let mut file = whole[..10].to_vec();
            file.extend(text.as_bytes());
            file.extend(&whole[whole.len() - 8..]);
            parse(&file).unwrap_err()
        };
        assert!(changed("<f4", ">f4").contains(">f4"));
        assert!(changed("False", "True ").contains("Fortran"));
        assert!(changed("(2,)", "(x,)").contains("no shape"));
        assert!(changed("(2,)", "(3,)").contains("bytes"));
    }
}
