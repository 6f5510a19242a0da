package backup

import (
	"context"
	"errors"
	"hash/fnv"
	"iter"
	"sync"

	"github.com/cofferbackup/coffer/backup/source"
	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store/pack"
)

// walker is what a goroutine needs to walk directories: the frames it gathers
// small chunks in, and scratch memory. There is a fixed number of them; whoever
// has one walks.
type walker struct {
	run     *run
	namer   *crypt.Namer
	gathers [pack.List + 1]*gather // by frame type, made when first needed
	scratch []byte                 // for encoding trees
	cutter  *cutter                // for large files, made when first needed
	counted uint64                 // bytes of the file being read, in Progress.Bytes
}

// holder is a goroutine's hold on a walker. It lets go while it waits for others,
// so that those get on.
type holder struct{ *walker }

// walk walks the whole source and returns the tree chunks of its root: none if
// there was nothing.
func (r *run) walk(ctx context.Context, session source.Session) ([]chunk.ID, error) {
	h := &holder{<-r.walkers}
	var prev []chunk.ID
	if r.parent != nil && !r.FullRead {
		prev = r.parent.Root
	}
	root, err := h.dir(ctx, session.Root(), "", prev)
	r.walkers <- h.walker
	if err != nil {
		return nil, err
	}
	for range cap(r.walkers) { // all come back: nobody walks any more
		w := <-r.walkers
		for _, g := range w.gathers {
			if err := g.flush(ctx); err != nil {
				return nil, err
			}
		}
	}
	return root.trees, nil
}

// listing is what became of a directory.
type listing struct {
	trees   []chunk.ID // its tree chunks
	gone    bool       // it could not be read and is left out
	partial bool       // it has more than is in the trees
}

// dir backs up an open directory: children first, then its own tree chunks.
func (h *holder) dir(ctx context.Context, d source.Dir, path string, prev []chunk.ID) (l listing, err error) {
	names, err := d.Names(ctx)
	if err != nil {
		l.gone = true
		return l, h.run.fault(ctx, path, err)
	}
	old := h.run.previous(ctx, prev)
	defer old.stop()
	seg := new(segment)
	save := func() error {
		if err := h.wait(ctx, seg); err != nil {
			return err
		}
		nodes := seg.nodes()
		l.partial = l.partial || len(nodes) < seg.met
		id, err := h.saveNodes(ctx, nodes)
		if err == nil && id != nil {
			l.trees = append(l.trees, *id)
		}
		seg = new(segment)
		return err
	}
	for _, name := range names {
		if err := h.child(ctx, d, path, name, old.find(name), seg); err != nil {
			return l, errors.Join(err, h.wait(ctx, seg))
		}
		if seg.full(name) {
			if err := save(); err != nil {
				return l, err
			}
		}
	}
	old.rest()
	if err := save(); err != nil {
		return l, err
	}
	if p, ok := d.(source.Partial); ok && p.Partial() {
		l.partial = true
	}
	h.run.Progress.Dirs.Add(1)
	return l, nil
}

// child backs up one entry of a directory and adds it to the segment. was is its
// node in the last point, or nil.
func (h *holder) child(ctx context.Context, d source.Dir, path, name string, was *tree.Node, seg *segment) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r := h.run
	seg.met++
	node, same, err := d.Stat(ctx, name, was)
	if err != nil {
		return r.fault(ctx, path+"/"+name, err)
	}
	if same && r.wary && node.Type == tree.File {
		if same, err = r.there(ctx, node.Content); err != nil {
			return err
		}
	}
	if !same && was != nil && (was.Type != tree.Dir || node.Type != tree.Dir) {
		r.drop(ctx, was)
	}
	switch {
	case node.Type == tree.Dir:
		var prev []chunk.ID
		if was != nil {
			prev = was.Trees
		}
		return h.subdir(ctx, d, path+"/"+name, node, prev, seg)
	case node.Type != tree.File:
		r.Progress.Others.Add(1)
	case !same:
		if node, err = h.file(ctx, d, path, node); node == nil || err != nil {
			return err
		}
		fallthrough
	default:
		r.Progress.Files.Add(1)
		if same {
			r.Progress.Bytes.Add(node.Size)
		}
	}
	seg.add(node)
	return nil
}

// subdir backs up a subdirectory: at the same time as its siblings if there is a
// free walker, else now.
func (h *holder) subdir(ctx context.Context, d source.Dir, path string, node *tree.Node, prev []chunk.ID, seg *segment) error {
	sub, err := d.Dir(ctx, node.Name)
	if err != nil {
		return h.run.fault(ctx, path, err)
	}
	e := seg.add(node)
	descend := func(h *holder) error {
		defer sub.Close()
		l, err := h.dir(ctx, sub, path, prev)
		node.Trees, node.Partial, e.gone = l.trees, node.Partial || l.partial, l.gone
		return err
	}
	select {
	case w := <-h.run.walkers:
		seg.wg.Go(func() {
			h := &holder{w}
			err := descend(h)
			h.run.walkers <- h.walker
			seg.fail(err)
		})
		return nil
	default:
		return descend(h)
	}
}

// wait waits until every entry of the segment is complete, and lets others have
// the walker meanwhile.
func (h *holder) wait(ctx context.Context, seg *segment) error {
	if seg.idle() {
		return seg.err
	}
	r := h.run
	r.walkers <- h.walker
	seg.wg.Wait()
	h.walker = <-r.walkers // whoever holds one either works or is here
	return seg.err
}

// saveNodes saves a tree chunk; an empty directory has none.
func (h *holder) saveNodes(ctx context.Context, nodes []*tree.Node) (*chunk.ID, error) {
	if len(nodes) == 0 {
		return nil, nil
	}
	h.scratch = tree.AppendNodes(h.scratch[:0], nodes)
	id, err := h.save(ctx, pack.Tree, h.scratch)
	return &id, err
}

// segment is the entries of one tree chunk. Directories are cut into segments at
// names that ask for it, so that a change in a large directory writes a small
// part of it.
type segment struct {
	entries []*entry
	met     int // names, whatever became of them
	weight  int
	wg      sync.WaitGroup
	running bool

	mu  sync.Mutex
	err error
}

type entry struct {
	node *tree.Node
	gone bool // could not be read after all
}

const (
	minNodes  = 256
	maxNodes  = 2048
	cutNodes  = 512 // one name in so many asks for a cut
	maxWeight = 1 << 20
)

func (s *segment) add(n *tree.Node) *entry {
	e := &entry{node: n}
	s.entries = append(s.entries, e)
	s.weight += 128 + len(n.Name) + len(n.Target) + 40*len(n.Content)
	for k, v := range n.Xattrs {
		s.weight += len(k) + len(v)
	}
	s.running = s.running || n.Type == tree.Dir
	return e
}

func (s *segment) full(name string) bool {
	if s.weight >= maxWeight || len(s.entries) >= maxNodes {
		return true
	}
	if len(s.entries) < minNodes {
		return false
	}
	sum := fnv.New32a()
	sum.Write([]byte(name))
	return sum.Sum32()%cutNodes == 0
}

func (s *segment) idle() bool { return !s.running }

func (s *segment) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
}

func (s *segment) nodes() []*tree.Node {
	nodes := make([]*tree.Node, 0, len(s.entries))
	for _, e := range s.entries {
		if !e.gone {
			nodes = append(nodes, e.node)
		}
	}
	return nodes
}

// fault records an entry that cannot be backed up and lets the backup go on,
// unless the source as a whole has failed.
func (r *run) fault(ctx context.Context, path string, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, source.ErrFailed):
		return err
	case errors.Is(err, source.ErrVanished):
		return nil
	}
	r.skip(source.Skip{Path: path, Reason: reason(err), Fault: true})
	return nil
}

// reason is the last part of an error, which says what; the path is known.
func reason(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}

// previous is a directory of the last point, read along with the names of today.
type previous struct {
	run  *run
	ctx  context.Context // of the walk: this is an iterator, and lives no longer
	next func() (*tree.Node, error, bool)
	stop func()
	node *tree.Node // the next one not passed yet
}

func (r *run) previous(ctx context.Context, trees []chunk.ID) *previous {
	p := &previous{run: r, ctx: ctx, next: func() (*tree.Node, error, bool) { return nil, nil, false }, stop: func() {}}
	if len(trees) > 0 {
		p.next, p.stop = iter.Pull2(r.reader.Nodes(ctx, trees))
		p.advance()
	}
	return p
}

func (p *previous) advance() {
	node, err, ok := p.next()
	if err != nil && p.ctx.Err() == nil {
		p.run.Log.Warn("a directory of the last point is not readable, so its files are read again", "item", p.run.Item.Name(), "error", err)
	}
	if p.node = nil; ok && err == nil {
		p.node = node
	}
}

// find returns the node of that name, or nil. Names come in order.
func (p *previous) find(name string) *tree.Node {
	for p.node != nil && p.node.Name < name {
		p.run.drop(p.ctx, p.node)
		p.advance()
	}
	if p.node == nil || p.node.Name != name {
		return nil
	}
	node := p.node
	p.advance()
	return node
}

// rest passes over what is left.
func (p *previous) rest() {
	for p.node != nil {
		p.run.drop(p.ctx, p.node)
		p.advance()
	}
}

// drop counts what a node of the last point held and the new one does not.
func (r *run) drop(ctx context.Context, n *tree.Node) {
	count := r.reader.Count(ctx, n)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.loose += count
}
