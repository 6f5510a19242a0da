package backup

import (
	"sync/atomic"

	"github.com/cofferbackup/coffer/catalog"
)

// Progress counts what a backup has done so far. It may be read at any time.
// Bytes are plaintext unless said otherwise.
type Progress struct {
	Files, Dirs, Others atomic.Uint64
	Bytes               atomic.Uint64 // of all files met, holes and unchanged ones included
	Read                atomic.Uint64 // read from the source
	Changed             atomic.Uint64 // files that were read
	New                 atomic.Uint64 // bytes that the vault did not have
	Stored              atomic.Uint64 // bytes put into the store
	Skipped             atomic.Uint64 // entries passed over with a fault
	Unquiet             atomic.Uint64 // files that would not hold still
}

func (p *Progress) stats() catalog.Stats {
	return catalog.Stats{
		Files: p.Files.Load(), Dirs: p.Dirs.Load(), Others: p.Others.Load(),
		Bytes: p.Bytes.Load(), Read: p.Read.Load(), Changed: p.Changed.Load(),
		New: p.New.Load(), Stored: p.Stored.Load(), Skipped: p.Skipped.Load(), Unquiet: p.Unquiet.Load(),
	}
}
