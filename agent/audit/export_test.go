package audit

// For tests of faults: what a log does to its folder, and a log on another disk.
type (
	Disk = disk
	File = file
)

// OSDisk is the disk of a log that Open returns.
type OSDisk = osDisk

func OpenOn(d Disk, cfg Config) (*Log, error) { return openOn(d, cfg) }

func SyslogAt(paths ...string) Sink { return newSyslog(paths...) }
