package state

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/internal/durable"
)

// Subject is what problems of the folder are about.
const Subject = "state folder"

// lost says what is not known any more because a file was set aside, and what to do then.
type lost struct{ pattern, says, next string }

// losses are those of all files of the state but the audit log's, which looks after itself.
var losses = [...]lost{
	{"vaults.json", "the ids of vaults made here are gone", "write those from the recovery sheets into the config, vaults.NAME.id"},
	{"custody.json", "which versions of keys were in use, the states of vaults and linked keys are gone", "check every key, coffer key check, and link again what was linked, coffer key link"},
	{"floors/*.json", "older key records that were put back before now are not noticed", "compare the fingerprints on the recovery sheet with coffer key list"},
	{"index/*/*", "it is built anew from the vault; what went missing there before is not noticed", "verify the item once: coffer verify"},
	{"jobs/*.json", "that job is not known any more", ""},
	{"schedule.json", "policies go on at their next times, and runs that were missed are not made up for", "back up now what is due: coffer policy run"},
	{"proofs.json", "what was proved of backups is not known any more", "prove it again: coffer verify"},
	{"notify.json", "some of what was told is told again", ""},
}

// Aside are the files of the folder that were damaged. They are problems until somebody
// has taken note of them, and removed what was set aside.
func (s *Folder) Aside() []control.Problem {
	var out []control.Problem
	for _, l := range losses {
		names, err := fs.Glob(os.DirFS(s.dir), l.pattern+durable.AsideSuffix)
		if err != nil {
			continue // there are no wrong patterns
		}
		for _, name := range names {
			file := s.Path(filepath.FromSlash(name))
			info, err := os.Stat(file)
			if err != nil {
				continue // it was removed just now
			}
			out = append(out, control.Problem{Subject: Subject,
				Message: fmt.Sprintf("%s was damaged, last written %s, and is set aside as %s: %s",
					strings.TrimSuffix(file, durable.AsideSuffix), info.ModTime().UTC().Format(time.RFC3339), filepath.Base(file), l.says),
				Next: strings.TrimPrefix(l.next+"; look at its disk (dmesg), and remove that file", "; ")})
		}
	}
	return out
}
