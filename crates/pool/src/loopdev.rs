//! Loop devices: attach, find, grow and detach them by ioctls, without `losetup`.
//!
//! A loop device is found again by the device and inode number of its backing file, so that
//! one that an earlier process attached is used again. Which files are attached, and when
//! they are let go, is for the callers to decide.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    ffi::c_void,
    io::Errno,
    ioctl::{self, Ioctl, IoctlOutput, Opcode},
};
use types::{Error, Result, error::ResultExt as _};

const CLR_FD: Opcode = 0x4C01;
const GET_STATUS64: Opcode = 0x4C05;
const SET_CAPACITY: Opcode = 0x4C07;
const CONFIGURE: Opcode = 0x4C0A;
const CTL_GET_FREE: Opcode = 0x4C82;

const READ_ONLY: u32 = 1;
const DIRECT_IO: u32 = 16;

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

impl Info {
    const ZERO: Self = Self {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: 0,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
}

/// `struct loop_config` of linux/loop.h.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

/// An ioctl without an argument whose result is the return value.
struct Plain<const OPCODE: Opcode>;

// SAFETY: these requests (LOOP_CTL_GET_FREE, LOOP_CLR_FD, LOOP_SET_CAPACITY) take no pointer.
unsafe impl<const OPCODE: Opcode> Ioctl for Plain<OPCODE> {
    type Output = u32;
    const IS_MUTATING: bool = false;
    fn opcode(&self) -> Opcode {
        OPCODE
    }
    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::null_mut()
    }
    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> rustix::io::Result<u32> {
        u32::try_from(out).map_err(|_| Errno::RANGE)
    }
}

/// How a file is attached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    pub read_only: bool,
    /// The logical block size in bytes; 0 lets the kernel choose what direct I/O needs.
    pub block_size: u32,
}

/// Attaches `file` with direct I/O and gives the device; one that holds it already is used
/// again (then read-only must be as asked). A discard of the device punches a hole in the file.
pub fn attach(file: &Path, options: Options) -> Result<PathBuf> {
    if let Some(found) = find(file)? {
        let read_only = is_read_only(&found)?;
        if read_only != options.read_only {
            return Err(Error::conflict(format!(
                "{} is attached already, {}, as {}",
                file.display(),
                if read_only { "read-only" } else { "writable" },
                found.display()
            )));
        }
        // It may have grown while nobody looked.
        set_capacity(&found)?;
        return Ok(found);
    }
    let backing = OpenOptions::new()
        .read(true)
        .write(!options.read_only)
        .open(file)
        .during(|| format!("open {}", file.display()))?;
    let control = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/loop-control")
        .during(|| "open /dev/loop-control")?;
    // Others take free devices at the same time: the number is only a proposal.
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        // SAFETY: LOOP_CTL_GET_FREE takes no argument and only returns a number.
        let number = unsafe { ioctl::ioctl(&control, Plain::<CTL_GET_FREE>) }
            .during(|| "find a free loop device")?;
        let device = PathBuf::from(format!("/dev/loop{number}"));
        match configure(&device, &backing, file, options) {
            Ok(()) => return Ok(device),
            Err(Errno::BUSY | Errno::NOENT | Errno::NXIO | Errno::AGAIN)
                if Instant::now() < deadline =>
            {
                thread::sleep(Duration::from_millis(2));
            }
            Err(error) => {
                return Err(Error::wrap(
                    format!("attach {} to {}", file.display(), device.display()),
                    error,
                ));
            }
        }
    }
}

fn configure(device: &Path, backing: &File, file: &Path, options: Options) -> Result<(), Errno> {
    let node = open_device(device, !options.read_only).map_err(|error| errno(&error))?;
    let mut info = Info::ZERO;
    info.flags = DIRECT_IO | if options.read_only { READ_ONLY } else { 0 };
    // For people who look with losetup; the kernel does not read it.
    let name = file.as_os_str().as_encoded_bytes();
    let length = name.len().min(info.file_name.len() - 1);
    info.file_name[..length].copy_from_slice(&name[..length]);
    let mut config = Config {
        fd: backing.as_raw_fd().cast_unsigned(),
        block_size: options.block_size,
        info,
        reserved: [0; 8],
    };
    // SAFETY: LOOP_CONFIGURE reads a `struct loop_config`, which `config` is; the backing file
    // is open for the whole call and the kernel takes a reference of its own.
    unsafe { ioctl::ioctl(&node, ioctl::Updater::<CONFIGURE, Config>::new(&mut config)) }
}

/// The loop device that holds `file`, if there is one.
pub fn find(file: &Path) -> Result<Option<PathBuf>> {
    let wanted = match fs::metadata(file) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::wrap(format!("look at {}", file.display()), error)),
    };
    for (device, info) in attached()? {
        // The kernel encodes device numbers here as stat does.
        if (info.device, info.inode) == (wanted.dev(), wanted.ino()) {
            return Ok(Some(device));
        }
    }
    Ok(None)
}

/// All attached loop devices.
fn attached() -> Result<Vec<(PathBuf, Info)>> {
    let mut found = Vec::new();
    let entries = fs::read_dir("/sys/block").during(|| "list /sys/block")?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        // The directory `loop` is there while a file is attached.
        if !name.as_encoded_bytes().starts_with(b"loop") || !entry.path().join("loop").exists() {
            continue;
        }
        let device = Path::new("/dev").join(&name);
        // It may be let go at this moment.
        if let Ok(node) = open_device(&device, false)
            && let Ok(info) = status(&node)
        {
            found.push((device, info));
        }
    }
    Ok(found)
}

fn status(node: &File) -> Result<Info, Errno> {
    let mut info = Info::ZERO;
    // SAFETY: LOOP_GET_STATUS64 fills a `struct loop_info64`, which `info` is.
    unsafe { ioctl::ioctl(node, ioctl::Updater::<GET_STATUS64, Info>::new(&mut info)) }?;
    Ok(info)
}

/// Whether a device was attached read-only.
fn is_read_only(device: &Path) -> Result<bool> {
    let node = open_device(device, false).during(|| format!("open {}", device.display()))?;
    let info = status(&node).during(|| format!("look at {}", device.display()))?;
    Ok(info.flags & READ_ONLY != 0)
}

/// Whether the device does direct I/O on its file; false where the file can't.
pub fn is_direct(device: &Path) -> Result<bool> {
    let node = open_device(device, false).during(|| format!("open {}", device.display()))?;
    let info = status(&node).during(|| format!("look at {}", device.display()))?;
    Ok(info.flags & DIRECT_IO != 0)
}

/// Makes the device as large as its file is now.
pub fn set_capacity(device: &Path) -> Result<()> {
    let node = open_device(device, false).during(|| format!("open {}", device.display()))?;
    // SAFETY: LOOP_SET_CAPACITY takes no argument.
    unsafe { ioctl::ioctl(&node, Plain::<SET_CAPACITY>) }
        .during(|| format!("let {} grow", device.display()))?;
    Ok(())
}

/// Lets the file go. A device that holds none is fine; one that is in use is a `Conflict`.
pub fn detach(device: &Path) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let node = match open_exclusive(device, deadline) {
        Ok(node) => node,
        Err(error) => match errno(&error) {
            Errno::NOENT | Errno::NXIO => return Ok(()),
            Errno::BUSY => {
                return Err(Error::conflict(format!("{} is in use", device.display())));
            }
            _ => return Err(Error::wrap(format!("open {}", device.display()), error)),
        },
    };
    match let_go(device, node, deadline)? {
        true => Ok(()),
        false => Err(Error::conflict(format!(
            "{} is still open somewhere: it is let go when that ends",
            device.display()
        ))),
    }
}

/// Lets the file go as soon as nothing uses the device any more: usually at once. What was
/// unmounted here may still be mounted in a copy of the mount namespace.
pub fn detach_when_idle(device: &Path) -> Result<()> {
    match open_device(device, false) {
        Ok(node) => let_go(device, node, Instant::now() + PATIENCE).map(drop),
        Err(error) if matches!(errno(&error), Errno::NOENT | Errno::NXIO) => Ok(()),
        Err(error) => Err(Error::wrap(format!("open {}", device.display()), error)),
    }
}

/// How long others who look at a device for a moment, as udev does, are waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Tells the kernel to let the file go when the last opener closes, and waits for that. False
/// when it takes longer.
fn let_go(device: &Path, node: File, deadline: Instant) -> Result<bool> {
    let Ok(before) = status(&node) else {
        return Ok(true);
    };
    // SAFETY: LOOP_CLR_FD takes no argument.
    match unsafe { ioctl::ioctl(&node, Plain::<CLR_FD>) } {
        Ok(_) | Err(Errno::NXIO) => {}
        Err(error) => return Err(Error::wrap(format!("detach {}", device.display()), error)),
    }
    drop(node);
    loop {
        let still = open_device(device, false)
            .ok()
            .and_then(|node| status(&node).ok())
            .is_some_and(|info| (info.device, info.inode) == (before.device, before.inode));
        if !still {
            return Ok(true);
        }
        if Instant::now() > deadline {
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Detaches whatever device holds `file`.
pub fn detach_file(file: &Path) -> Result<()> {
    match find(file)? {
        Some(device) => detach(&device),
        None => Ok(()),
    }
}

/// Opens with O_EXCL, which the kernel refuses while the device is mounted or held.
fn open_exclusive(device: &Path, deadline: Instant) -> io::Result<File> {
    loop {
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::EXCL.bits().cast_signed())
            .open(device);
        match opened {
            // The last unmount may still be under way.
            Err(error) if errno(&error) == Errno::BUSY && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(10));
            }
            other => return other,
        }
    }
}

fn open_device(device: &Path, writable: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(writable).open(device)
}

/// The size of a block device in bytes.
pub fn device_size(device: &Path) -> Result<u64> {
    use std::io::Seek as _;
    let mut node = open_device(device, false).during(|| format!("open {}", device.display()))?;
    node.seek(io::SeekFrom::End(0))
        .during(|| format!("find the size of {}", device.display()))
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Seek as _, Write as _},
        os::unix::fs::FileExt as _,
    };

    use super::*;

    /// Detaches also when the test fails.
    struct Attached(PathBuf);
    impl Drop for Attached {
        fn drop(&mut self) {
            let _ = detach(&self.0);
        }
    }

    fn file(bytes: u64) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = directory.path().join("file");
        File::create(&path).unwrap().set_len(bytes).unwrap();
        (directory, path)
    }

    #[test]
    fn attached_found_grown_and_detached() {
        let (_directory, path) = file(8 << 20);
        assert_eq!(find(&path).unwrap(), None);
        let device = Attached(attach(&path, Options::default()).unwrap());
        assert_eq!(find(&path).unwrap().as_deref(), Some(device.0.as_path()));
        assert!(is_direct(&device.0).unwrap());
        // A second time gives the same.
        assert_eq!(attach(&path, Options::default()).unwrap(), device.0);
        assert_eq!(device_size(&device.0).unwrap(), 8 << 20);
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(16 << 20)
            .unwrap();
        set_capacity(&device.0).unwrap();
        assert_eq!(device_size(&device.0).unwrap(), 16 << 20);
        let mut node = File::options()
            .read(true)
            .write(true)
            .open(&device.0)
            .unwrap();
        node.write_all(b"through the loop").unwrap();
        node.sync_all().unwrap();
        let mut start = [0; 16];
        File::open(&path)
            .unwrap()
            .read_exact_at(&mut start, 0)
            .unwrap();
        assert_eq!(&start, b"through the loop");
        drop(node);
        detach(&device.0).unwrap();
        assert_eq!(find(&path).unwrap(), None);
        detach_file(&path).unwrap();
    }

    #[test]
    fn read_only_refuses_writes_and_another_mode() {
        let (_directory, path) = file(4 << 20);
        let options = Options {
            read_only: true,
            block_size: 0,
        };
        let device = Attached(attach(&path, options).unwrap());
        // The kernel lets it be opened, but not be written.
        let node = File::options().write(true).open(&device.0);
        assert!(node.and_then(|node| node.write_all_at(b"x", 0)).is_err());
        let mut byte = [1];
        File::open(&device.0)
            .unwrap()
            .read_exact(&mut byte)
            .unwrap();
        assert_eq!(byte, [0]);
        let error = attach(&path, Options::default()).unwrap_err();
        assert_eq!(error.kind, types::error::Kind::Conflict);
    }

    #[test]
    fn a_discard_punches_a_hole() {
        let (_directory, path) = file(16 << 20);
        let device = Attached(attach(&path, Options::default()).unwrap());
        let mut node = File::options()
            .read(true)
            .write(true)
            .open(&device.0)
            .unwrap();
        node.write_all(&vec![7; 8 << 20]).unwrap();
        node.sync_all().unwrap();
        node.rewind().unwrap();
        let before = fs::metadata(&path).unwrap().blocks() * 512;
        rustix::fs::fallocate(
            &node,
            rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE,
            0,
            8 << 20,
        )
        .unwrap();
        node.sync_all().unwrap();
        let after = fs::metadata(&path).unwrap().blocks() * 512;
        assert!(
            before >= 8 << 20 && after < 1 << 20,
            "{before} then {after}"
        );
    }

    #[test]
    fn many_at_the_same_time() {
        let files: Vec<_> = (0..8).map(|_| file(1 << 20)).collect();
        let devices: Vec<Attached> = std::thread::scope(|scope| {
            let tasks: Vec<_> = files
                .iter()
                .map(|(_, path)| scope.spawn(|| attach(path, Options::default())))
                .collect();
            tasks
                .into_iter()
                .map(|task| Attached(task.join().unwrap().unwrap()))
                .collect()
        });
        for ((_, path), device) in files.iter().zip(&devices) {
            assert_eq!(find(path).unwrap().as_deref(), Some(device.0.as_path()));
        }
    }
}
