package proof

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/cofferbackup/coffer/backup/source"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/restore/target"
	"github.com/cofferbackup/coffer/store/pack"
)

// comparing is a comparison under way.
type comparing struct {
	Config
	folder   string
	lacks    *lacking
	skipped  map[string]string         // what the restore could not give, and why
	links    map[tree.Inode]tree.Inode // files of several names: what they are here
	root     bool                      // everything can be given
	findings []Finding
	mine     []byte // of what was restored
	theirs   []byte // of the source
}

func (c *comparing) wrong(path string, err error) {
	c.Progress.Faults.Add(1)
	if len(c.findings) < MaxFindings {
		c.findings = append(c.findings, Finding{path, err})
	}
}

// run compares what was restored into the target with the point and the source.
func (c *comparing) run(ctx context.Context, into target.Target) error {
	sink, err := into.Open(ctx, target.Options{Users: c.Point.Users, Groups: c.Point.Groups, NumericOwner: true, DryRun: true})
	if err != nil {
		return err
	}
	defer sink.Close()
	var from source.Dir
	if c.Source != nil {
		session, err := c.Source.Open(ctx, func(source.Skip) {})
		if err == nil {
			defer session.Close()
			from = session.Root()
		}
	}
	root := sink.Root()
	return errors.Join(c.dir(ctx, "", c.Point.Root, root, from), root.Finish(nil))
}

// dir compares a directory and all below it. from is the source's, or nil.
func (c *comparing) dir(ctx context.Context, path string, trees []chunk.ID, d target.Dir, from source.Dir) error {
	there, err := d.Names()
	if errors.Is(err, fs.ErrPermission) {
		c.permit(path)
		there, err = d.Names()
	}
	if err != nil {
		c.wrong(path+"/", err)
		return nil
	}
	for node, err := range c.Reader.Nodes(ctx, trees) {
		if err != nil {
			if !catalog.Lost(err) {
				return err
			}
			c.wrong(path+"/", err)
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		there = c.passed(path, there, node.Name)
		if err := c.entry(ctx, path+"/"+node.Name, node, d, from); err != nil {
			return err
		}
	}
	c.passed(path, there, "")
	return nil
}

// passed returns the names that come after one, "" for the end. What comes before it
// and was not in the point should not be there.
func (c *comparing) passed(path string, there []string, name string) []string {
	for len(there) > 0 && (name == "" || there[0] <= name) {
		if there[0] != name {
			c.wrong(path+"/"+there[0], errors.New("the point has no such entry"))
		}
		there = there[1:]
	}
	return there
}

// entry compares one entry.
func (c *comparing) entry(ctx context.Context, path string, node *tree.Node, d target.Dir, from source.Dir) error {
	there, err := d.Look(node.Name)
	switch {
	case err != nil:
		c.wrong(path, err)
		return nil
	case there == nil && !c.root && (node.Type == tree.CharDevice || node.Type == tree.BlockDevice):
		return nil
	case there == nil && c.skipped[path] != "":
		c.wrong(path, errors.New(c.skipped[path]))
		return nil
	case there == nil:
		c.wrong(path, errors.New("it was not restored"))
		return nil
	case there.Type != node.Type:
		c.wrong(path, fmt.Errorf("it is a %s and came back as a %s", node.Type, there.Type))
		return nil
	}
	if what := c.differs(path, node, there); what != "" {
		c.wrong(path, fmt.Errorf("its %s came back otherwise", what))
	}
	switch node.Type {
	case tree.Dir:
		return c.subdir(ctx, path, node, d, from)
	case tree.File:
		return c.file(ctx, path, node, d, from)
	}
	return nil
}

func (c *comparing) subdir(ctx context.Context, path string, node *tree.Node, d target.Dir, from source.Dir) error {
	sub, err := d.Dir(node.Name)
	if errors.Is(err, fs.ErrPermission) {
		c.permit(path)
		sub, err = d.Dir(node.Name)
	}
	if err != nil {
		c.wrong(path, err)
		return nil
	}
	var below source.Dir
	if from != nil {
		if below, err = from.Dir(ctx, node.Name); err != nil {
			below = nil // it is not there any more, or not for us
		} else {
			defer below.Close()
		}
	}
	return errors.Join(c.dir(ctx, path, node.Trees, sub, below), sub.Finish(nil))
}

// permit lets the agent's own user look into what was restored with a mode that keeps
// him out. That the mode came back right has been looked at before.
func (c *comparing) permit(path string) {
	if folder, err := os.OpenRoot(c.folder); err == nil {
		defer folder.Close()
		_ = folder.Chmod("."+path, 0o700) // if it cannot be had, the next try says so
	}
}

// differs names what of an entry's metadata did not come back, of what can be given
// without root and of what was given.
func (c *comparing) differs(path string, node, there *tree.Node) string {
	link := tree.Inode{}
	if there.Link != nil {
		link = *there.Link
	}
	if node.Type == tree.File && node.Link != nil {
		first, met := c.links[*node.Link]
		if !met {
			c.links[*node.Link] = link
		} else if first != link || link == (tree.Inode{}) {
			return "hard link"
		}
	}
	lacks := c.lacks.lacks(path)
	switch {
	case node.Target != there.Target:
		return "target"
	case node.Size != there.Size && node.Type == tree.File:
		return "size"
	case node.Device != there.Device:
		return "device number"
	case !sameTime(node.MTime, there.MTime):
		return "time"
	case lacks:
		return ""
	case node.Mode != there.Mode && node.Type != tree.Symlink:
		return "mode"
	case c.root && (node.UID != there.UID || node.GID != there.GID):
		return "owner"
	}
	for name, value := range node.Xattrs {
		if !bytes.Equal(there.Xattrs[name], value) {
			return "attribute " + name
		}
	}
	return ""
}

// sameTime tells whether a time came back, as finely as the scratch folder keeps it.
func sameTime(want, have tree.Time) bool {
	if want.Sec != have.Sec {
		return want.Sec/2 == have.Sec/2 && have.Nsec == 0 && have.Sec%2 == 0 // FAT
	}
	for _, grain := range []uint32{1, 100, 1000, 1_000_000_000} {
		if want.Nsec/grain*grain == have.Nsec {
			return true
		}
	}
	return false
}

// file compares the content of a file.
func (c *comparing) file(ctx context.Context, path string, node *tree.Node, d target.Dir, from source.Dir) error {
	f, err := d.Existing(node.Name)
	if errors.Is(err, fs.ErrPermission) {
		c.permit(path)
		f, err = d.Existing(node.Name)
	}
	if err != nil {
		c.wrong(path, err)
		return nil
	}
	defer f.Close()
	at := uint64(0)
	for e, err := range c.Reader.Extents(ctx, node.Content) {
		if err == nil {
			err = c.extent(ctx, f, e, at)
		}
		switch {
		case err == nil:
			at += e.Length
			continue
		case ctx.Err() != nil:
			return ctx.Err()
		case !catalog.Lost(err):
			return fmt.Errorf("%s: %w", path, err)
		}
		c.wrong(path, err)
		return nil
	}
	c.Progress.Compared.Add(1)
	return c.original(ctx, path, node, f, from)
}

// errContent: what was restored is not what the point says.
var errContent = fmt.Errorf("its content came back otherwise: %w", crypt.ErrDamaged)

// extent compares a piece of a file with what the point says is there.
func (c *comparing) extent(ctx context.Context, f io.ReaderAt, e tree.Extent, at uint64) error {
	if e.Kind != tree.Content {
		return c.zeros(f, at, e.Length)
	}
	data, err := c.read(f, at, e.Length)
	if err != nil {
		return err
	}
	loc, err := c.Reader.Find(ctx, e.ID, pack.Data)
	if err != nil {
		return err
	}
	loc.Offset, loc.Length = 0, uint32(e.Length)
	if _, err := c.Reader.Cut(ctx, data, loc, e.ID); err != nil {
		if errors.Is(err, crypt.ErrDamaged) {
			return fmt.Errorf("bytes %d to %d: %w", at, at+e.Length, errContent)
		}
		return err
	}
	c.Progress.Bytes.Add(e.Length)
	return nil
}

// read reads a piece of what was restored.
func (c *comparing) read(f io.ReaderAt, at, length uint64) ([]byte, error) {
	c.mine = slices.Grow(c.mine[:0], int(length))[:length]
	if n, err := f.ReadAt(c.mine, int64(at)); uint64(n) < length {
		return nil, fmt.Errorf("it ends after %d bytes (%w): %w", at+uint64(n), err, errContent)
	}
	return c.mine, nil
}

// pieceSize is how much is compared at a time where there are no chunks.
const pieceSize = 256 << 10

// zeros checks that a piece of what was restored reads as zeros.
func (c *comparing) zeros(f io.ReaderAt, at, length uint64) error {
	for length > 0 {
		n := min(length, pieceSize)
		data, err := c.read(f, at, n)
		if err != nil {
			return err
		}
		if i := slices.IndexFunc(data, func(b byte) bool { return b != 0 }); i >= 0 {
			return fmt.Errorf("byte %d should be zero: %w", at+uint64(i), errContent)
		}
		at, length = at+n, length-n
	}
	return nil
}

// original compares a file with the source's, if that is unchanged since the backup.
// What cannot be read there proves nothing and is passed over.
func (c *comparing) original(ctx context.Context, path string, node *tree.Node, f io.ReaderAt, from source.Dir) error {
	if from == nil || node.Changing {
		return nil
	}
	_, same, err := from.Stat(ctx, node.Name, node)
	if err != nil || !same {
		return ctx.Err()
	}
	src, err := from.Open(ctx, node.Name)
	if err != nil {
		return ctx.Err()
	}
	defer src.Close()
	differs, err := c.sameAs(f, src)
	if err != nil {
		return ctx.Err()
	}
	if now, changed, err := src.Changed(); err != nil || changed || now != nil && now.Size != node.Size {
		return ctx.Err()
	}
	if differs != nil {
		c.wrong(path, differs)
		return nil
	}
	c.Progress.Source.Add(1)
	return nil
}

// sameAs compares what was restored with a file of the source. err is the source's.
func (c *comparing) sameAs(f io.ReaderAt, src source.File) (differs, err error) {
	c.theirs = slices.Grow(c.theirs[:0], pieceSize)[:pieceSize]
	pos := int64(0)
	for {
		off, _, err := src.NextData()
		if err != nil && err != io.EOF {
			return nil, err
		}
		if hole := off - pos; hole > 0 {
			if differs := c.zeros(f, uint64(pos), uint64(hole)); differs != nil {
				return differs, nil
			}
			pos = off
		}
		if err == io.EOF {
			return nil, nil
		}
		for {
			n, err := src.Read(c.theirs)
			if n > 0 {
				mine, differs := c.read(f, uint64(pos), uint64(n))
				if differs == nil && !bytes.Equal(mine, c.theirs[:n]) {
					differs = fmt.Errorf("it differs behind byte %d from the source, which has not changed since the backup: %w", pos, crypt.ErrDamaged)
				}
				if differs != nil {
					return differs, nil
				}
				pos += int64(n)
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				return nil, err
			}
		}
	}
}
