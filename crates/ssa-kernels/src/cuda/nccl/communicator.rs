//! This GPU among those of all ranks.

use std::ops::Range;
use std::ptr;
use std::thread;
use std::time::{Duration, Instant};

use cudarc::driver::sys::CUdeviceptr;

use super::functions::{BYTE, Comm, Config, Functions, IN_PROGRESS, SUCCESS, Status};
use crate::cuda::{Event, Gpu, Memory};
use crate::{Device, KernelError, Result, Tensor};

pub use super::functions::UniqueId;

/// How long the ranks may take to connect, and to queue an operation.
const DEADLINE: Duration = Duration::from_secs(60);

/// The wait between two looks at an operation.
const TICK: Duration = Duration::from_micros(20);

/// Tells whether another rank has ended.
type Ended = Box<dyn Fn() -> bool + Send>;

impl UniqueId {
    /// The number of bytes.
    pub const LEN: usize = 128;

    /// What identifies a new communicator. One rank makes it and tells the others. Needs no GPU.
    ///
    /// # Errors
    /// [`KernelError::Library`] if NCCL is missing or too old; [`KernelError::Cuda`].
    pub fn new() -> Result<Self> {
        let functions = Functions::get()?;
        let mut id = Self([0; Self::LEN]);
        // SAFETY: the argument is a place for an ID.
        match unsafe { (functions.get_unique_id)(&raw mut id) } {
            SUCCESS => Ok(id),
            status => Err(functions.error("ncclGetUniqueId", status, ptr::null_mut())),
        }
    }

    /// The ID from its bytes.
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        self.0
    }
}

/// The connection of a GPU to those of all other ranks. Operations are queued on the stream of the
/// GPU. All ranks must call the same ones in the same order.
pub struct Communicator {
    gpu: Gpu,
    functions: &'static Functions,
    comm: Comm,
    /// The library writes the communicator to this place again when it has connected.
    _place: Box<Comm>,
    rank: usize,
    size: usize,
    ended: Ended,
}

// SAFETY: NCCL lets any thread use a communicator, one at a time; this type has no shared handles.
unsafe impl Send for Communicator {}

/// Bytes on the device.
#[derive(Clone, Copy)]
struct Region {
    address: CUdeviceptr,
    bytes: usize,
}

impl Communicator {
    /// Connects the GPU of a rank with those of the other ranks, which have the same ID. Whatever
    /// waits for other ranks fails once `ended` says that one of them has ended.
    ///
    /// # Errors
    /// [`KernelError::Library`] if NCCL is missing or too old; [`KernelError::Cuda`] with what it
    /// says, or after a minute.
    pub fn new(
        gpu: &Gpu,
        [rank, size]: [usize; 2],
        id: UniqueId,
        ended: impl Fn() -> bool + Send + 'static,
    ) -> Result<Self> {
        const CALL: &str = "ncclCommInitRankConfig";
        let functions = Functions::get()?;
        // The library uses the device that is current.
        gpu.stream()?;
        let (mut place, mut config) = (Box::new(ptr::null_mut()), Config::non_blocking());
        let [rank_number, size_number] = [rank, size].map(|number| number as i32);
        let (comm_place, config_place) = (&raw mut *place, &raw mut config);
        // SAFETY: both pointers are valid, the first one until the communicator is aborted; the
        // library copies the configuration.
        let status = unsafe {
            (functions.init_rank)(comm_place, size_number, id, rank_number, config_place)
        };
        let (gpu, comm, ended) = (gpu.clone(), *place, Box::new(ended));
        let communicator = Self { gpu, functions, comm, _place: place, rank, size, ended };
        communicator.settle(CALL, status)?;
        Ok(communicator)
    }

    /// Sends `piece(t, r)` of tensor t to each rank r; returns what each rank sent: `[r][t]` has
    /// one axis, and for the own rank it is a copy of the own piece. Tensors without elements may
    /// be anywhere.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] with what the library says; [`KernelError::OutOfMemory`];
    /// [`KernelError::Argument`] if a tensor is not on this GPU or a piece ends outside of it.
    pub fn all_to_all(
        &self,
        tensors: &[&Tensor],
        piece: impl Fn(usize, usize) -> Range<usize>,
    ) -> Result<Vec<Vec<Tensor>>> {
        let device = Device::Cuda(self.gpu.clone());
        let mut received: Vec<Vec<Tensor>> = Vec::with_capacity(self.size);
        for _ in 0..self.size {
            let room = tensors.iter().enumerate().map(|(index, tensor)| {
                match piece(index, self.rank).len() {
                    0 => Ok(Tensor::default()),
                    length => Tensor::for_output_on(&device, tensor.dtype(), [length]),
                }
            });
            received.push(room.collect::<Result<_>>()?);
        }
        let (mut sends, mut receives) = (Vec::new(), Vec::new());
        for (index, tensor) in tensors.iter().enumerate() {
            if tensor.is_empty() {
                continue;
            }
            let (memory, element) = (tensor.device_memory()?, tensor.dtype().size());
            for rank in 0..self.size {
                let region = self.region(memory, piece(index, rank), element)?;
                let target = &mut received[rank][index];
                if rank != self.rank {
                    sends.push((rank, region));
                }
                if target.is_empty() {
                    continue;
                }
                let target = target.device_memory_mut()?;
                if rank == self.rank {
                    let from = (region.address - memory.address()) as usize;
                    target.copy_from(0, (memory, from), region.bytes)?;
                } else {
                    let whole = Region { address: target.address(), bytes: target.bytes() };
                    receives.push((rank, whole));
                }
            }
        }
        self.exchange(&sends, &receives)?;
        Ok(received)
    }

    /// Completes tensors of which every rank r has `piece(t, r)`.
    ///
    /// # Errors
    /// As [`all_to_all`](Self::all_to_all).
    pub fn all_gather(
        &self,
        tensors: &mut [&mut Tensor],
        piece: impl Fn(usize, usize) -> Range<usize>,
    ) -> Result<()> {
        let (mut sends, mut receives) = (Vec::new(), Vec::new());
        for (index, tensor) in tensors.iter_mut().enumerate() {
            let element = tensor.dtype().size();
            let memory = tensor.device_memory_in_place()?;
            let own = self.region(memory, piece(index, self.rank), element)?;
            for rank in (0..self.size).filter(|rank| *rank != self.rank) {
                sends.push((rank, own));
                receives.push((rank, self.region(memory, piece(index, rank), element)?));
            }
        }
        self.exchange(&sends, &receives)
    }

    /// Waits until all that is queued on the stream of the GPU is done.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if it failed or another rank has ended.
    pub fn wait(&self) -> Result<()> {
        const CALL: &str = "exchange between GPUs";
        self.gpu.count_host_wait();
        let end = Event::record(&self.gpu)?;
        while !end.is_done()? {
            self.check(CALL, self.state()?)?;
            self.check_others(CALL)?;
            thread::sleep(TICK);
        }
        Ok(())
    }

    /// Queues sends and receives, all of which run at the same time.
    fn exchange(&self, sends: &[(usize, Region)], receives: &[(usize, Region)]) -> Result<()> {
        let Self { functions, comm, .. } = *self;
        let stream = self.gpu.stream()?;
        // SAFETY: no conditions.
        self.check("ncclGroupStart", unsafe { (functions.group_start)() })?;
        let some = |list: &[(usize, Region)]| {
            list.iter().copied().filter(|(_, region)| region.bytes > 0).collect::<Vec<_>>()
        };
        for (rank, Region { address, bytes }) in some(sends) {
            // SAFETY: the memory has these bytes and is freed in the order of the stream.
            let status =
                unsafe { (functions.send)(address, bytes, BYTE, rank as i32, comm, stream) };
            self.check("ncclSend", status)?;
        }
        for (rank, Region { address, bytes }) in some(receives) {
            // SAFETY: as above, and nothing else uses these bytes: they belong to tensors borrowed
            // mutably, and regions of one tensor do not overlap.
            let status =
                unsafe { (functions.recv)(address, bytes, BYTE, rank as i32, comm, stream) };
            self.check("ncclRecv", status)?;
        }
        // SAFETY: ends the group that began above.
        let status = unsafe { (functions.group_end)() };
        self.settle("ncclGroupEnd", status)
    }

    fn region(&self, memory: &Memory, piece: Range<usize>, element: usize) -> Result<Region> {
        let (start, bytes) = (piece.start * element, piece.len() * element);
        if *memory.gpu() != self.gpu || start + bytes > memory.bytes() {
            let expected = format!("at most {} bytes on {}", memory.bytes(), self.gpu);
            let actual = format!("{} bytes on {}", start + bytes, memory.gpu());
            return Err(KernelError::value("an exchange", "piece", expected, actual));
        }
        Ok(Region { address: memory.address() + start as u64, bytes })
    }

    fn check(&self, call: &'static str, status: Status) -> Result<()> {
        match status {
            SUCCESS | IN_PROGRESS => Ok(()),
            status => Err(self.functions.error(call, status, self.comm)),
        }
    }

    /// Waits until what a call began is queued.
    fn settle(&self, call: &'static str, status: Status) -> Result<()> {
        self.check(call, status)?;
        if status == SUCCESS {
            return Ok(());
        }
        let start = Instant::now();
        loop {
            let state = self.state()?;
            self.check(call, state)?;
            if state == SUCCESS {
                return Ok(());
            }
            self.check_others(call)?;
            if start.elapsed() > DEADLINE {
                let message = format!("other ranks did not come in {} s", DEADLINE.as_secs());
                return Err(KernelError::Cuda { call, message });
            }
            thread::sleep(TICK);
        }
    }

    /// The state of the communicator: success, in progress, or an error.
    fn state(&self) -> Result<Status> {
        let mut state = SUCCESS;
        // SAFETY: the communicator is open and the state a valid place.
        let asked = unsafe { (self.functions.async_error)(self.comm, &raw mut state) };
        self.check("ncclCommGetAsyncError", asked)?;
        Ok(state)
    }

    fn check_others(&self, call: &'static str) -> Result<()> {
        if !(self.ended)() {
            return Ok(());
        }
        Err(KernelError::Cuda { call, message: "another rank has ended".to_owned() })
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        if !self.comm.is_null() && self.gpu.stream().is_ok() {
            // Unlike its regular end, this waits for no other rank. Results that were needed have
            // been read.
            // SAFETY: the communicator is open and not used afterwards.
            let _ = unsafe { (self.functions.abort)(self.comm) };
        }
    }
}

impl std::fmt::Debug for Communicator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rank {} of {} on {}", self.rank, self.size, self.gpu)
    }
}
