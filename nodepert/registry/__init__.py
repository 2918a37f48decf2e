"""What a name in a spec means: the catalogue, signatures, validation, and building the object that a spec names."""

from nodepert.registry.build import make as make
from nodepert.registry.build import make_loss as make_loss
from nodepert.registry.build import make_model as make_model
from nodepert.registry.build import make_rule as make_rule
from nodepert.registry.describe import about as about
from nodepert.registry.describe import examples as examples
from nodepert.registry.describe import facts as facts
from nodepert.registry.describe import passes as passes
from nodepert.registry.describe import said as said
from nodepert.registry.describe import usage as usage
from nodepert.registry.table import entry as entry
from nodepert.registry.table import everything as everything
from nodepert.registry.table import names as names
from nodepert.registry.table import plural as plural
from nodepert.registry.table import register as register
from nodepert.registry.table import resolve as resolve
from nodepert.registry.tasks import auto_loss as auto_loss
from nodepert.registry.tasks import check_loss as check_loss
from nodepert.registry.tasks import declared_task as declared_task
from nodepert.registry.validate import check as check
from nodepert.registry.validate import full as full
from nodepert.registry.validate import plain as plain
from nodepert.registry.validate import short as short
from nodepert.registry.validate import shortened as shortened
from nodepert.registry.validate import to_float as to_float
from nodepert.registry.validate import within as within
