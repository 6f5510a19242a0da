package audit

import "bytes"

// outlet is a sink and how it does.
type outlet struct {
	sink Sink
	lost int // lines since it began to fail; 0: it works
}

// send gives lines to every sink. One that fails is an alarm, and loses no line of
// the log.
func (l *Log) send(data []byte) {
	for line := range bytes.Lines(data) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		for i, o := range l.outlets {
			err := o.sink.Send(line)
			switch {
			case err != nil:
				if o.lost++; o.lost == 1 {
					l.log.Error("sink of the audit log fails", "sink", i, "err", err, "next", "the lines are in "+l.dir)
				}
			case o.lost > 0:
				l.log.Warn("sink of the audit log works again", "sink", i, "lost", o.lost)
				o.lost = 0
			}
		}
	}
}
