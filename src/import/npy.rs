//! Arrays as NumPy saves them, in a file each.

use std::path::Path;

use trt_fuse_ir::{DType, Tensor, numel};

use super::error::ImportError;
use super::map;

const MAGIC: &[u8] = b"\x93NUMPY";

/// Reads a file that holds one array, as `numpy.save` writes it: numbers in little-endian order, C order.
///
/// # Errors
/// What is wrong with the file.
pub fn read_npy(path: &Path) -> Result<Tensor, ImportError> {
    let read = || {
        let bytes = map::map_file(path)?;
        let (header, at) = header(&bytes).map_err(|reason| ImportError::Npy { reason: reason.to_string() })?;
        let (dtype, dims) = parse(header).map_err(|reason| ImportError::Npy { reason })?;
        let data = bytes.slice(at..);
        let expected = numel(&dims).and_then(|count| dtype.byte_len(count));
        if expected != Some(data.len()) {
            let reason = format!("{} bytes of data where {dtype}{dims:?} was said", data.len());
            return Err(ImportError::Npy { reason });
        }
        Tensor::new(dtype, dims, data).map_err(|error| ImportError::Npy { reason: error.to_string() })
    };
    read().map_err(|error: ImportError| error.in_file(path))
}

/// The header, a Python literal, and where the data begin.
fn header(bytes: &[u8]) -> Result<(&str, usize), &'static str> {
    let rest = bytes.strip_prefix(MAGIC).ok_or("not an array of NumPy")?;
    let (length, start) = match rest {
        [1, _, a, b, ..] => (usize::from(u16::from_le_bytes([*a, *b])), 10),
        [2 | 3, _, a, b, c, d, ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, 12),
        _ => return Err("a version of the format that is not known"),
    };
    let end = length.saturating_add(start);
    let header = bytes.get(start..end).ok_or("the header is cut off")?;
    Ok((std::str::from_utf8(header).map_err(|_| "the header is no text")?, end))
}

/// Type and dimensions in a header such as `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`.
fn parse(header: &str) -> Result<(DType, Vec<usize>), String> {
    let after = |key: &str| {
        let found = header.split_once(&format!("'{key}':")).map(|(_, rest)| rest.trim_start());
        found.ok_or_else(|| format!("the header has no `{key}`"))
    };
    let descr = after("descr")?;
    let descr = descr.strip_prefix('\'').and_then(|rest| rest.split_once('\'')).map_or(descr, |(descr, _)| descr);
    let dtype = match descr {
        "<f2" => DType::F16,
        "<f4" => DType::F32,
        "<f8" => DType::F64,
        "|i1" => DType::I8,
        "<i2" => DType::I16,
        "<i4" => DType::I32,
        "<i8" => DType::I64,
        "|u1" => DType::U8,
        "<u2" => DType::U16,
        "<u4" => DType::U32,
        "<u8" => DType::U64,
        "|b1" => DType::Bool,
        other => return Err(format!("elements of type `{other}`: save it as little-endian numbers")),
    };
    if !after("fortran_order")?.starts_with("False") {
        return Err("the array is in Fortran order: save numpy.ascontiguousarray of it".to_string());
    }
    let shape = after("shape")?;
    let dims = shape.strip_prefix('(').and_then(|rest| rest.split_once(')')).map(|(dims, _)| dims);
    let dims = dims.ok_or("a shape that is no tuple")?.split(',').map(str::trim).filter(|dim| !dim.is_empty());
    let dims = dims.map(|dim| dim.parse().map_err(|_| format!("a dimension of `{dim}`")));
    Ok((dtype, dims.collect::<Result<_, _>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `numpy.save` of NumPy 2.3 writes for `numpy.arange(6, dtype=numpy.int16).reshape(2, 3)`.
    fn saved() -> Vec<u8> {
        let mut header = b"{'descr': '<i2', 'fortran_order': False, 'shape': (2, 3), }".to_vec();
        header.resize(117, b' ');
        header.push(b'\n');
        [b"\x93NUMPY\x01\x00\x76\x00".to_vec(), header, (0..6_i16).flat_map(i16::to_le_bytes).collect()].concat()
    }

    fn read(bytes: &[u8]) -> Result<Tensor, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        read_npy(file.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn arrays_are_read() {
        let tensor = read(&saved()).unwrap();
        assert_eq!((tensor.dtype(), tensor.dims()), (DType::I16, &[2, 3][..]));
        assert_eq!(tensor.to_i64s().unwrap(), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn what_is_no_array_is_refused() {
        let refused = |bytes: &[u8], reason: &str| {
            let error = read(bytes).unwrap_err();
            assert!(error.contains(reason), "{error}");
        };
        let text = String::from_utf8_lossy(&saved()[10..128]).into_owned();
        let with = |old: &str, new: &str| {
            let header = text.replace(old, new);
            let length = u16::try_from(header.len()).unwrap().to_le_bytes();
            [b"\x93NUMPY\x01\x00".as_slice(), &length, header.as_bytes(), &[0; 12]].concat()
        };
        refused(b"PK", "not an array of NumPy");
        refused(&saved()[..40], "cut off");
        refused(&saved()[..130], "2 bytes of data where i16[2, 3] was said");
        refused(&with("(2, 3)", "(9223372036854775807, 9223372036854775807)"), "was said");
        refused(&with("(2, 3)", "(-1,)"), "a dimension of `-1`");
        refused(&with("(2, 3)", "2"), "no tuple");
        refused(&with("<i2", ">i2"), "elements of type `>i2`");
        refused(&with("False", "True"), "Fortran order");
        refused(&with("'shape'", "'size'"), "no `shape`");
        refused(b"\x93NUMPY\x09\x00\x00\x00", "version");
    }
}
