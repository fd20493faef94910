//! Free memory of the system, of control groups and of `ulimit -v`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use ssa_kernels::Device;

/// Bytes of a device that the program can still allocate; `None` if unknown.
///
/// On the CPU this is the minimum of the system's available memory, the room in the control groups,
/// and the room under `ulimit -v`.
pub(super) fn free_memory(device: &Device) -> Result<Option<u64>> {
    if let Device::Cuda(gpu) = device {
        return Ok(Some(gpu.memory_info()?.0 as u64));
    }
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let groups = group_directories(&read("/proc/self/cgroup"));
    let limits = [
        kibibytes(&read("/proc/meminfo"), "MemAvailable:"),
        address_space(&read("/proc/self/limits"), &read("/proc/self/status")),
        groups.iter().filter_map(group_free).min(),
    ];
    Ok(limits.into_iter().flatten().min())
}

/// The bytes of a key that the kernel reports in KiB.
fn kibibytes(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1 << 10)
}

/// The remaining address space under `ulimit -v`.
fn address_space(limits: &str, status: &str) -> Option<u64> {
    let rest = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    let soft: u64 = rest.split_whitespace().next()?.parse().ok()?;
    Some(soft.saturating_sub(kibibytes(status, "VmSize:")?))
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
        assert_eq!(address_space(&limits("8192000000"), status), Some(8_192_000_000 - 1_024_000));
        assert_eq!(address_space(&limits("unlimited"), status), None);
        assert_eq!(address_space(&limits("5"), status), Some(0));
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
