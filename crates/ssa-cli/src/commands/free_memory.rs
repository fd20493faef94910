//! Free memory of the system, of control groups and of `ulimit -v`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use ssa_kernels::Device;

/// Bytes of a device that each of so many processes on this host can still allocate; `None` if
/// unknown.
///
/// On the CPU this is the minimum of its share of the system's available memory, its share of the
/// room in the control groups, and the room under `ulimit -v`, which every process has. Processes
/// do not share GPUs.
pub(super) fn free_memory(device: &Device, processes: usize) -> Result<Option<u64>> {
    if let Device::Cuda(gpu) = device {
        return Ok(Some(gpu.memory_info()?.0 as u64));
    }
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let groups = group_directories(&read("/proc/self/cgroup"));
    let share = |free: u64| free / processes.max(1) as u64;
    let limits = [
        kibibytes(&read("/proc/meminfo"), "MemAvailable:").map(share),
        address_space(&read("/proc/self/limits"), || {
            (read("/proc/self/status"), read("/proc/self/smaps"))
        }),
        groups.iter().filter_map(group_free).min().map(share),
    ];
    Ok(limits.into_iter().flatten().min())
}

/// The bytes of a key that the kernel reports in KiB.
fn kibibytes(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1 << 10)
}

/// Address space that stacks of threads and gaps of the allocator take, about.
const UNUSABLE: u64 = 16 << 20;

/// The remaining address space under `ulimit -v`. What the allocator has reserved and not touched
/// is free, too. `usage` is the text of `status` and `smaps`.
fn address_space(limits: &str, usage: impl FnOnce() -> (String, String)) -> Option<u64> {
    let rest = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    let soft: u64 = rest.split_whitespace().next()?.parse().ok()?;
    let (status, mappings) = usage();
    let used = kibibytes(&status, "VmSize:")?.saturating_sub(untouched(&mappings));
    Some(soft.saturating_sub(used).saturating_sub(UNUSABLE))
}

/// Bytes of anonymous writable memory that were never written, from `/proc/self/smaps`.
fn untouched(mappings: &str) -> u64 {
    let (mut sum, mut anonymous, mut size) = (0_u64, false, 0);
    for line in mappings.lines() {
        let mut fields = line.split_whitespace();
        match (fields.next(), fields.next(), fields.next()) {
            (Some("Size:"), Some(kib), _) => size = kib.parse().unwrap_or(0),
            (Some("Rss:"), Some(kib), _) if anonymous => {
                sum += u64::saturating_sub(size, kib.parse().unwrap_or(size));
            }
            // The header of a mapping; inode and path follow.
            (Some(range), Some(rights), Some(_)) if range.contains('-') => {
                anonymous =
                    rights == "rw-p" && fields.nth(1) == Some("0") && fields.next().is_none();
            }
            _ => {}
        }
    }
    sum << 10
}

/// A control group with a memory limit, and the names of its files.
struct Group {
    directory: PathBuf,
    limit: &'static str,
    usage: &'static str,
    /// Memory that the kernel can reclaim.
    reclaimable: &'static str,
}

/// The control groups of the program and all their ancestors, from `/proc/self/cgroup`. Inside a
/// container the path may be that of the host, so the root is always included.
fn group_directories(own: &str) -> Vec<Group> {
    let mut groups = Vec::new();
    for line in own.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, limit, usage, reclaimable) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file "),
            "memory" => (
                "/sys/fs/cgroup/memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file ",
            ),
            _ => continue,
        };
        let inside = Path::new(path.trim_start_matches('/'));
        for part in inside.ancestors() {
            let directory = Path::new(root).join(part);
            groups.push(Group { directory, limit, usage, reclaimable });
        }
    }
    groups
}

/// The remaining memory of one control group; `None` without a limit.
fn group_free(group: &Group) -> Option<u64> {
    let read = |name: &str| fs::read_to_string(group.directory.join(name)).ok();
    let limit: u64 = read(group.limit)?.trim().parse().ok()?;
    let usage: u64 = read(group.usage)?.trim().parse().ok()?;
    let statistics = read("memory.stat").unwrap_or_default();
    let reclaimable = statistics.lines().find_map(|line| line.strip_prefix(group.reclaimable));
    let reclaimable: u64 = reclaimable.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    Some(limit.saturating_sub(usage.saturating_sub(reclaimable)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_limits_are_parsed() {
        let meminfo = "MemTotal:       24576000 kB\nMemAvailable:   20480000 kB\n";
        assert_eq!(kibibytes(meminfo, "MemAvailable:"), Some(20_480_000 << 10));
        assert_eq!(kibibytes(meminfo, "SwapFree:"), None);
        let limits = |soft: &str| {
            format!("Limit  Soft Limit\nMax address space         {soft}   unlimited   bytes\n")
        };
        let status = "Name:\tssa\nVmSize:\t  1000 kB\n";
        let room = |soft: &str, mappings: &str| {
            address_space(&limits(soft), || (status.to_owned(), mappings.to_owned()))
        };
        assert_eq!(room("8192000000", ""), Some(8_192_000_000 - UNUSABLE - 1_024_000));
        assert_eq!(room("unlimited", ""), None);
        assert_eq!(room("5", ""), Some(0));
        let mappings = "7f00-7f40 rw-p 00000000 00:00 0 \nSize:  400 kB\nRss:   100 kB\n\
                        7f50-7f60 ---p 00000000 00:00 0 \nSize:   50 kB\nRss:     0 kB\n\
                        7f70-7f80 rw-p 00000000 08:01 77  /bin/ssa\nSize: 60 kB\nRss:  0 kB\n\
                        7f90-7fa0 rw-p 00000000 00:00 0  [stack]\nSize: 70 kB\nRss:  0 kB\n";
        assert_eq!(room("8192000000", mappings), Some(8_192_000_000 - UNUSABLE - 700 * 1024));
    }

    #[test]
    fn every_group_above_counts() {
        let directories = |own: &str| -> Vec<String> {
            let groups = group_directories(own);
            groups.iter().map(|group| group.directory.display().to_string()).collect()
        };
        assert_eq!(
            directories("0::/a/b\n"),
            ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup/"]
        );
        let old = "3:cpu,cpuacct:/x\n2:memory:/docker/1\n";
        assert_eq!(directories(old)[0], "/sys/fs/cgroup/memory/docker/1");
        assert_eq!(directories("no group"), [""; 0]);
    }

    #[test]
    fn a_group_leaves_its_limit_less_what_cannot_be_reclaimed() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        write("memory.current", "700\n");
        write("memory.stat", "anon 500\ninactive_file 200\n");
        let group = || Group {
            directory: directory.path().to_owned(),
            ..group_directories("0::/").remove(0)
        };
        write("memory.max", "max\n");
        assert_eq!(group_free(&group()), None);
        write("memory.max", "1000\n");
        assert_eq!(group_free(&group()), Some(500));
    }
}
