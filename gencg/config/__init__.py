"""The settings of a run: typed, checked, written down, compared."""

from gencg.config.checksums import file_checksum as file_checksum
from gencg.config.checksums import forcefield_checksum as forcefield_checksum
from gencg.config.comparing import adds_cvs as adds_cvs
from gencg.config.comparing import hindrances as hindrances
from gencg.config.reading import read_object as read_object
from gencg.config.reading import read_small as read_small
from gencg.config.reading import read_toml as read_toml
from gencg.config.run_config import IN_TWO_STAGES as IN_TWO_STAGES
from gencg.config.run_config import INPUTS as INPUTS
from gencg.config.run_config import SHIPPED as SHIPPED
from gencg.config.run_config import RunConfig as RunConfig
